"""Single-precision GEMM on a GPU that nobody has measured: from other GPUs' measurements and its data sheet.

A law in waves of tiles carries what a data sheet tells: SMs, rates, bandwidth and the power limit. Libraries pick one
of a few tiles and may split K; the law takes the fastest. Trees on features without a unit (waves, fill, waste,
alignment) correct it. GPUs that run the same family of kernels count most, then those of a neighbouring compute
capability; where none of the same generation is measured the trees stay coarse, since details do not carry over.
NeuSight (Lee et al., ASPLOS 2025) asks the same question and publishes the measurements.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from lapidist.hardware.gpu.data_sheet import DataSheet

FloatArray = NDArray[np.float64]
Tile = tuple[int, int]

COLUMNS = ("gpu", "batch", "m", "n", "k", "seconds")
TILES: tuple[Tile, ...] = (
    (128, 128),
    (128, 64),
    (64, 128),
    (64, 64),
    (128, 32),
    (32, 128),
    (64, 32),
    (32, 32),
)

# FLOP per joule of single precision against Pascal's 16 nm: estimates by process generation, not measured.
_ENERGY_GAIN = {
    "pascal": 1.0,
    "volta": 1.33,
    "turing": 1.33,
    "ampere": 2.0,
    "ada": 3.4,
    "hopper": 3.4,
    "blackwell": 3.4,
}
_SPLITS = (1, 2, 4, 8)  # ways to share K between blocks
# Compute capabilities from which cuBLAS runs single precision by other kernels (named maxwell_, volta_, ampere_sgemm).
_NEW_KERNELS = (7.0, 8.0)
_OTHER_KERNELS = 0.15  # weight of a GPU with other kernels against one with the same
_CAPABILITY_SCALE = 0.7  # a difference of compute capability by which that weight falls by a factor e
_LEAST_WEIGHT = 0.02
_SAME_GENERATION = 0.11  # between compute capabilities
_SAMPLE = 1500
_FEATURE_TILES: tuple[Tile, ...] = ((128, 128), (128, 64), (64, 64), (128, 32), (32, 32), (256, 128))

# Logarithms: launch in µs, arithmetic and memory efficiency (logit), exponent of the smooth maximum less one,
# what small tiles lose, prologue in steps of K, GFLOP per joule of a 16 nm chip.
_START = np.array([np.log(15), 1.5, 1.0, -0.7, np.log(3), np.log(40), np.log(45)])
_LOOSENESS = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.15])


@dataclass(frozen=True, eq=False)
class UnseenGPUModel:
    """Fitted for one target."""

    target: DataSheet
    parameters: FloatArray
    trees: lightgbm.LGBMRegressor

    @classmethod
    def fit(cls, rows: pd.DataFrame, sheets: Mapping[str, DataSheet], target: DataSheet) -> Self:
        """Learn from measured rows (``COLUMNS``, ``gpu`` a key of ``sheets``) what the target would do.

        Raises
        ------
        ValueError : a column or a data sheet is absent, or a measured GPU is the target itself.
        """
        _check(rows, sheets, target)
        distance = {gpu: abs(_capability(sheets[gpu]) - _capability(target)) for gpu in rows["gpu"].unique()}
        weight = (
            rows["gpu"].map({gpu: _weight(sheets[gpu], target) for gpu in distance}).to_numpy(dtype=float)
        )
        measured = np.log(rows["seconds"].to_numpy(dtype=float))
        parameters = _fit_law(rows, sheets, weight, measured)
        law = _by_gpu(rows, lambda part, gpu: _law(parameters, part, sheets[gpu]))
        features = _by_gpu(rows, lambda part, gpu: _features(part, sheets[gpu]))
        related = min(distance.values()) <= _SAME_GENERATION
        model = lightgbm.LGBMRegressor(
            n_estimators=200 if related else 100,
            num_leaves=31 if related else 7,
            min_child_samples=40,
            learning_rate=0.08,
            objective="l1",
            num_threads=1,
            deterministic=True,
            verbose=-1,
        )
        model.fit(features, measured - law, sample_weight=weight)
        return cls(target, parameters, model)

    def seconds(self, shapes: pd.DataFrame) -> FloatArray:
        """Expected time on the target of each row (``batch``, ``m``, ``n``, ``k``); never below its peak rate."""
        law = _law(self.parameters, shapes, self.target)
        rest = np.asarray(self.trees.predict(_features(shapes, self.target)), dtype=float)
        floor = _flops(shapes) / self.target.operations_per_second("fp32", "max")
        return np.maximum(np.exp(law + rest), floor)


def sustained_rate(sheet: DataSheet, flops_per_joule_pascal: float) -> float:
    """FLOP/s of single precision: the peak at boost clock, or what the power limit lets the card do."""
    gain = _ENERGY_GAIN.get(sheet.architecture.lower())
    if gain is None:
        raise ValueError(f"no energy gain known for architecture {sheet.architecture!r} of {sheet.name}")
    return min(sheet.operations_per_second("fp32"), sheet.tdp_watts * gain * flops_per_joule_pascal)


def _law(x: FloatArray, shapes: pd.DataFrame, sheet: DataSheet) -> FloatArray:
    """Logarithm of the seconds: launch, then the fastest tile's waves and device memory in a smooth maximum."""
    launch, exponent = 1e-6 * np.exp(x[0]), 1 + np.exp(x[3])
    compute, memory = 1 / (1 + np.exp(-x[1])), 1 / (1 + np.exp(-x[2]))
    small_tiles, prologue = np.exp(x[4]), np.exp(x[5])
    rate_per_sm = compute * sustained_rate(sheet, 1e9 * float(np.exp(x[6]))) / sheet.sms
    bandwidth = memory * sheet.memory_bytes_per_second
    batch, m, n, k = _sizes(shapes)
    fastest = np.full(len(shapes), np.inf)
    for rows, columns in TILES:
        ctas = batch * np.ceil(m / rows) * np.ceil(n / columns)
        slower = 1 + small_tiles * (1 / rows + 1 / columns)
        for ways in _SPLITS:
            steps = 8 * np.ceil(k / ways / 8) + prologue
            seconds = np.ceil(ctas * ways / sheet.sms) * 2 * rows * columns * steps * slower / rate_per_sm
            if ways > 1:  # partial sums go through memory
                seconds = seconds + 8 * ways * batch * m * n / bandwidth
            fastest = np.minimum(fastest, seconds)
    moved = 4 * batch * (m * k + k * n + m * n) / bandwidth
    return np.log(launch + (fastest**exponent + moved**exponent) ** (1 / exponent))


def _fit_law(
    rows: pd.DataFrame,
    sheets: Mapping[str, DataSheet],
    weight: FloatArray,
    measured: FloatArray,
) -> FloatArray:
    """Least mean absolute logarithm over a weighted sample; held to where it starts."""
    size = min(_SAMPLE, len(rows))
    chosen = np.random.RandomState(0).choice(len(rows), size, replace=False, p=weight / weight.sum())
    sample, wanted = rows.iloc[chosen], measured[chosen]

    def cost(x: FloatArray) -> float:
        law = _by_gpu(sample, lambda part, gpu: _law(x, part, sheets[gpu]))
        return float(np.abs(law - wanted).mean() + 0.002 * np.sum(((x - _START) / _LOOSENESS) ** 2))

    return np.asarray(minimize(cost, _START, method="Nelder-Mead", options={"maxiter": 300}).x)


def _features(shapes: pd.DataFrame, sheet: DataSheet) -> FloatArray:
    """Sizes, balance of arithmetic and memory, alignment; waves, fill and waste of six tiles."""
    batch, m, n, k = _sizes(shapes)
    moved = 4 * batch * (m * k + k * n + m * n) / sheet.memory_bytes_per_second
    balance = _flops(shapes) / sheet.operations_per_second("fp32") / moved
    columns = [np.log2(batch), np.log2(m), np.log2(n), np.log2(k), np.log2(balance), m % 4, n % 4, k % 4]
    for rows, across in _FEATURE_TILES:
        ctas = batch * np.ceil(m / rows) * np.ceil(n / across)
        waves = ctas / sheet.sms
        columns += [np.log2(waves), np.ceil(waves) / waves, ctas * rows * across / (batch * m * n)]
    return np.column_stack(columns)


def _by_gpu(rows: pd.DataFrame, compute: Callable[[pd.DataFrame, str], FloatArray]) -> FloatArray:
    """Row-wise results of ``compute`` on each GPU's rows, in the order of ``rows``."""
    gpu = rows["gpu"].to_numpy(dtype=str)
    parts = {name: np.flatnonzero(gpu == name) for name in np.unique(gpu)}
    found = [compute(rows.iloc[places], str(name)) for name, places in parts.items()]
    return np.concatenate(found)[np.argsort(np.concatenate(list(parts.values())))]


def _sizes(shapes: pd.DataFrame) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    batch, m, n, k = (shapes[column].to_numpy(dtype=float) for column in ("batch", "m", "n", "k"))
    return batch, m, n, k


def _flops(shapes: pd.DataFrame) -> FloatArray:
    batch, m, n, k = _sizes(shapes)
    return 2 * batch * m * n * k


def _weight(measured: DataSheet, target: DataSheet) -> float:
    here, there = _capability(measured), _capability(target)
    if all((here >= new) == (there >= new) for new in _NEW_KERNELS):
        return 1.0
    return _OTHER_KERNELS * float(np.exp(-abs(here - there) / _CAPABILITY_SCALE)) + _LEAST_WEIGHT


def _capability(sheet: DataSheet) -> float:
    return float(sheet.compute_capability)


def _check(rows: pd.DataFrame, sheets: Mapping[str, DataSheet], target: DataSheet) -> None:
    for column in COLUMNS:
        if column not in rows:
            raise ValueError(f"the measured rows lack the column {column!r}")
    for gpu in rows["gpu"].unique():
        if gpu not in sheets:
            raise ValueError(f"no data sheet is given for {gpu}, of which there are measured rows")
        if sheets[gpu].name == target.name:
            raise ValueError(f"{target.name} is among the measured GPUs, so it is not unseen")
