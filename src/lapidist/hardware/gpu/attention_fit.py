"""Fits attention on one GPU from measured kernels: laws by simplex search, trees on the rest, conformal widths."""

from dataclasses import dataclass
from typing import cast

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from lapidist.hardware.gpu.attention_law import LawParameters, Terms
from lapidist.hardware.gpu.attention_measurements import head_configs, shapes_of
from lapidist.hardware.gpu.attention_phase import FittedPhase, Phase, Regime, extent_of, regimes_of, terms_of
from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.splits import grouped_folds

FloatArray = NDArray[np.float64]
_LAW_ROWS = 4000  # enough for five numbers
_FOLDS = 5
_COVERAGE = 0.9
# The folds see fewer head configurations than the final fit and err more, so that their 90 % quantile covers 92 %.
_FOLD_QUANTILE = 0.885


@dataclass(frozen=True)
class TreeSize:
    """How much the residual may learn; what ships trades it for size."""

    trees: int = 300
    leaves: int = 63
    learning_rate: float = 0.1
    min_rows: int = 20


def fit_phase(
    table: pd.DataFrame, sheet: DataSheet, size: TreeSize = TreeSize(), conformal: bool = True
) -> FittedPhase:
    """Fit the rows of one GPU, backend, version and phase; the same rows give the same bits.

    Without ``conformal`` the interval is that of the rows fitted on, too narrow, and fitting six times as fast.

    Raises
    ------
    ValueError : rows of several GPUs, versions or phases, or fewer than 50.
    """
    kinds = table[["system", "backend", "version", "phase"]].drop_duplicates()
    if len(kinds) != 1:
        raise ValueError(
            f"attention is fitted per GPU, backend, version and phase; the rows have {len(kinds)} of them"
        )
    if len(table) < 50:
        raise ValueError(f"fitting attention needs at least 50 measured kernels, got {len(table)}")
    phase = cast(Phase, kinds["phase"].iloc[0])
    shapes, measured = shapes_of(table), table["seconds"].to_numpy(float)
    terms, regimes = terms_of(phase, shapes, sheet), regimes_of(phase, shapes)
    position = extent_of(shapes)
    laws = _fit_laws(terms, regimes, measured)
    law_only = FittedPhase(
        phase=phase,
        laws=laws,
        residual=None,
        spread=None,
        spread_scale=0.0,
        extent=(tuple(position.min(axis=0)), tuple(position.max(axis=0))),
    )
    target = np.log(measured / law_only.law_seconds(shapes, terms))
    residual = _fit_trees(terms.features, target, size)
    if conformal:
        spread, scale = _conformal_spread(terms.features, target, head_configs(table), size)
    else:
        left = np.abs(target - residual.predict(terms.features, num_threads=1))
        spread, scale = None, float(np.quantile(left, _COVERAGE))
    return FittedPhase(phase, laws, residual, spread, scale, law_only.extent)


def _fit_laws(terms: Terms, regimes: FloatArray, measured: FloatArray) -> dict[Regime, LawParameters]:
    found: dict[Regime, LawParameters] = {}
    for regime in np.unique(regimes, axis=0):
        rows = np.flatnonzero((regimes == regime).all(axis=1))
        if len(rows) > _LAW_ROWS:
            rows = np.random.RandomState(0).permutation(rows)[:_LAW_ROWS]
        first, second, third = map(float, regime)
        found[first, second, third] = _fit_law(terms, rows, measured)
    return found


def _fit_law(terms: Terms, rows: NDArray[np.int64], measured: FloatArray) -> LawParameters:
    tensor, memory, exponential = (x[rows] for x in (terms.tensor, terms.memory, terms.exponential))
    log_measured = np.log(measured[rows])

    def parameters(x: FloatArray) -> LawParameters:
        launch, tensor_part, memory_part, exponent, exponential_part = np.exp(x)
        return LawParameters(launch * 1e-6, tensor_part, memory_part, 1 + exponent, exponential_part)

    def loss(x: FloatArray) -> float:
        error = np.abs(np.log(parameters(x).seconds(tensor, memory, exponential)) - log_measured).mean()
        return float(error + 1e-3 * np.square(np.maximum(x[[1, 2, 4]], 0.0)).sum())

    start = np.log([8.0, 0.5, 0.7, 1.0, 0.5])
    return parameters(minimize(loss, start, method="Nelder-Mead", options={"maxiter": 800}).x)


def _fit_trees(
    features: FloatArray, target: FloatArray, size: TreeSize, quantile: float | None = None
) -> lightgbm.Booster:
    parameters = {
        "objective": "l1" if quantile is None else "quantile",
        "alpha": quantile or 0.5,
        "num_leaves": size.leaves,
        "learning_rate": size.learning_rate,
        "min_data_in_leaf": min(size.min_rows, max(2, len(target) // 20)),
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "num_threads": 1,
        "seed": 0,
        "deterministic": True,
        "force_row_wise": True,
        "verbose": -1,
    }
    return lightgbm.train(parameters, lightgbm.Dataset(features, target), size.trees)


def _conformal_spread(
    features: FloatArray, target: FloatArray, groups: NDArray[np.str_], size: TreeSize
) -> tuple[lightgbm.Booster | None, float]:
    """Spread fitted on half of the errors on held-out head configurations, scaled to cover 90 % of the other half."""
    folds = min(_FOLDS, len(np.unique(groups)))
    error = np.zeros(len(target))
    if folds < 2:
        raise ValueError("conformal intervals need kernels of at least 2 head configurations")
    for split in grouped_folds(groups, folds):
        trees = _fit_trees(features[split.train], target[split.train], size)
        predicted = trees.predict(features[split.test], num_threads=1)
        error[split.test] = np.abs(target[split.test] - predicted)
    names = np.unique(groups)
    if len(names) < 4:
        return None, float(np.quantile(error, _COVERAGE))
    fit_on = np.isin(groups, names[np.random.RandomState(1).permutation(len(names))[::2]])
    spread = _fit_trees(features[fit_on], error[fit_on], TreeSize(60, 15, 0.1, 50), quantile=_COVERAGE)
    width = np.maximum(spread.predict(features[~fit_on], num_threads=1), 1e-3)
    rank = min(1.0, _FOLD_QUANTILE * (1 + 1 / int((~fit_on).sum())))
    return spread, float(np.quantile(error[~fit_on] / width, rank))
