"""Fits GEMM models to measured tables: the analytical part per group, trees per pool, intervals on held-out sites."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.data_sheet import DataSheet, load_data_sheet
from lapidist.hardware.gpu.gemm_features import GEMM_FEATURES
from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.gemm_model import GEMMGroup, GEMMModel, GEMMTrees, pool_columns, size_range
from lapidist.hardware.gpu.gemm_roofline import FloatArray, fit_roofline, roofline_terms
from lapidist.hardware.gpu.measurements import KEY_COLUMNS
from lapidist.hardware.gpu.splits import drop_repeated_shapes, site20
from lapidist.hardware.gpu.weight_rotation import rotation_of

LEAST_ROWS = 100
_LEAST_SITES = 10  # fewer leave nothing to hold out
_COVERAGE = 0.9
# Columns whose neighbours (m = 128 and 129, a working set just below and just above L2) must not share a bin.
_FINE = {"log2_m": 255, "log2_working_set_over_l2": 255}
_BINS = 63
# Huber's: errors beyond this, in log time, count in proportion, since single readings are off by 10 % and more.
_PLAIN = 0.05
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class TreeSize:
    """How much the trees may learn; what ships trades it for size.

    ``objective`` is LightGBM's: ``huber``, or ``l1`` where a format's times jump by more than they scatter.
    """

    trees: int = 300
    leaves: int = 255
    learning_rate: float = 0.06
    interval_trees: int = 30
    interval_leaves: int = 15
    objective: str = "huber"
    depth: int = 20


@dataclass(frozen=True, eq=False)
class FittedPool:
    """The groups of one format and compute capability with their common trees, by the pool's name."""

    name: str
    groups: tuple[GEMMGroup, ...]
    trees: GEMMTrees

    def model(self, group: GEMMGroup) -> GEMMModel:
        return GEMMModel(load_data_sheet(group.gpu), gemm_format(group.dtype), group, self.trees)


@dataclass(frozen=True, eq=False)
class GEMMRows:
    """Measured rows of one group, each (m, n, k) once, and its data sheet; ``key`` is (gpu, backend, version)."""

    sheet: DataSheet
    key: tuple[str, str, str]
    dtype: str
    frame: pd.DataFrame

    def sizes(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        m, n, k, seconds = (self.frame[name].to_numpy(np.float64) for name in ("m", "n", "k", "seconds"))
        return m, n, k, seconds

    @property
    def family(self) -> tuple[str, str]:
        """Of GPUs that run the same kernels at nearly the same rates."""
        return self.sheet.architecture, self.sheet.compute_capability.split(".")[0]

    def take(self, rows: NDArray[np.bool_]) -> "GEMMRows":
        return replace(self, frame=self.frame[rows].reset_index(drop=True))


def fit_gemm_models(
    table: pd.DataFrame,
    size: TreeSize = TreeSize(),
    reference: Sequence[tuple[str, str, str]] = (),
    progress: Progress = lambda label, done, total: None,
) -> list[FittedPool]:
    """Fit every group of ``table`` (see :mod:`lapidist.hardware.gpu.measurements`), pooled by format and capability.

    A trial fit leaves a fifth of the (n, k) sites out, those that ``site20`` draws for the pool's first group in
    ``reference`` (gpu, backend, version), else for its largest; errors and intervals come from there. What is returned
    is fitted on all rows. The same table gives the same bits.

    Raises
    ------
    ValueError : an unknown GPU or format, or a group of fewer than 100 rows or 10 sites.
    """
    pools = pools_of(table)
    fitted = []
    for number, (name, members) in enumerate(pools.items()):
        progress(name, number, len(pools))
        fitted.append(fit_pool(name, members, size, reference))
    progress("", len(pools), len(pools))
    return fitted


def pools_of(table: pd.DataFrame) -> dict[str, list[GEMMRows]]:
    pools: dict[str, list[GEMMRows]] = {}
    for (system, backend, version, dtype), frame in table.groupby(
        list(KEY_COLUMNS), observed=True, sort=True
    ):
        sheet = load_data_sheet(str(system))
        gemm_format(str(dtype))
        frame = drop_repeated_shapes(frame)
        sites = len(frame[["n", "k"]].drop_duplicates())
        if len(frame) < LEAST_ROWS or sites < _LEAST_SITES:
            raise ValueError(
                f"{sheet.name} {dtype} of {backend} {version}: {len(frame)} rows at {sites} (n, k) sites; a fit needs "
                f"{LEAST_ROWS} rows at {_LEAST_SITES} sites, fewer can calibrate a known GPU"
            )
        rows = GEMMRows(sheet, (sheet.name, str(backend), str(version)), str(dtype), frame)
        pools.setdefault(f"{sheet.architecture}-{sheet.compute_capability}-{dtype}", []).append(rows)
    return pools


def fit_pool(
    name: str,
    members: Sequence[GEMMRows],
    size: TreeSize = TreeSize(),
    reference: Sequence[tuple[str, str, str]] = (),
) -> FittedPool:
    """One pool; see :func:`fit_gemm_models`."""
    by_key = {rows.key: rows for rows in members}
    named = [by_key[key] for key in reference if key in by_key]
    first = named[0] if named else max(members, key=lambda rows: len(rows.frame))
    held_sites = site20(first.frame).apply(first.frame)[1]
    held = [_at_sites(rows.frame, held_sites) for rows in members]
    kept = [rows.take(~test) for rows, test in zip(members, held, strict=True)]
    trial_groups = [_group(number, rows) for number, rows in enumerate(kept)]
    # A small table of what is asked for by default must not drown in a large one of another backend.
    largest = max(len(rows.frame) for rows in members)
    weights = [largest / len(rows.frame) if rows is first else 1.0 for rows in members]
    trial = _residual_trees(kept, trial_groups, size, weights)
    tests = [rows.take(test) for rows, test in zip(members, held, strict=True)]
    trees, groups = _intervals(tests, trial_groups, trial, size)
    final_groups = [_group(number, rows, groups[number]) for number, rows in enumerate(members)]
    final = _residual_trees(members, final_groups, size, weights)
    return FittedPool(name, tuple(final_groups), replace(trees, residual=final))


def _at_sites(frame: pd.DataFrame, sites: pd.DataFrame) -> NDArray[np.bool_]:
    wanted = pd.MultiIndex.from_frame(sites[["n", "k"]]).unique()
    return np.asarray(pd.MultiIndex.from_frame(frame[["n", "k"]]).isin(wanted))


def _group(number: int, rows: GEMMRows, trial: GEMMGroup | None = None) -> GEMMGroup:
    """The group of ``rows``; what a trial fit found about it stands: parameters, interval and errors."""
    m, n, k, seconds = rows.sizes()
    smallest, largest = size_range(m, n, k)
    gpu, backend, version = rows.key
    return GEMMGroup(
        gpu=gpu,
        backend=backend,
        version=version,
        dtype=rows.dtype,
        number=number,
        parameters=trial.parameters
        if trial
        else fit_roofline(m, n, k, seconds, rows.sheet, gemm_format(rows.dtype)),
        smallest=smallest,
        largest=largest,
        shortest_seconds=float(seconds.min()),
        rows=len(m),
        widening=trial.widening if trial else 0.0,
        errors=trial.errors if trial else {},
        rotation=rotation_of(backend, version, rows.dtype),
    )


def columns_and_target(rows: GEMMRows, group: GEMMGroup) -> tuple[FloatArray, FloatArray]:
    m, n, k, seconds = rows.sizes()
    form = gemm_format(rows.dtype)
    terms = roofline_terms(m, n, k, rows.sheet, form, group.parameters)
    return pool_columns(m, n, k, rows.sheet, form, group, terms), np.log(seconds / terms.seconds)


def _residual_trees(
    members: Sequence[GEMMRows], groups: list[GEMMGroup], size: TreeSize, weights: Sequence[float]
) -> lightgbm.Booster:
    parts = [columns_and_target(rows, group) for rows, group in zip(members, groups, strict=True)]
    columns, target = (np.concatenate(part) for part in zip(*parts, strict=True))
    weight = np.repeat(weights, [len(rows.frame) for rows in members])
    return train_trees(
        columns,
        target,
        size.trees,
        size.leaves,
        size.learning_rate,
        size.objective,
        _PLAIN,
        weight=weight,
        depth=size.depth,
    )


def train_trees(
    columns: FloatArray,
    target: FloatArray,
    trees: int,
    leaves: int,
    learning_rate: float,
    objective: str,
    alpha: float = 0.5,
    weight: FloatArray | None = None,
    depth: int = 12,
) -> lightgbm.Booster:
    parameters = {
        "objective": objective,
        "alpha": alpha,
        "num_leaves": leaves,
        "max_depth": depth,
        "learning_rate": learning_rate,
        "min_data_in_leaf": min(10, max(2, len(target) // 50)),
        "feature_fraction_bynode": 0.5,
        "lambda_l2": 1.0,
        "max_bin_by_feature": [*(_FINE.get(name, _BINS) for name in GEMM_FEATURES), _BINS],
        "num_threads": 1,
        "seed": 0,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }
    return lightgbm.train(parameters, lightgbm.Dataset(columns, target, weight=weight), trees)


def _intervals(
    tests: list[GEMMRows], groups: list[GEMMGroup], trial: lightgbm.Booster, size: TreeSize
) -> tuple[GEMMTrees, list[GEMMGroup]]:
    """Quantile trees on the held-out sites; conformal widening (Romano et al., 2019), each half scored by the other."""
    columns, errors, halves = [], [], []
    for rows, group in zip(tests, groups, strict=True):
        seen, target = columns_and_target(rows, group)
        columns.append(seen)
        errors.append(target - np.asarray(trial.predict(seen, num_threads=1)))
        halves.append(rows.frame.groupby(["n", "k"], sort=True).ngroup().to_numpy() % 2)
    seen, left, half = (np.concatenate(parts) for parts in (columns, errors, halves))
    ends = [np.empty_like(left), np.empty_like(left)]
    for number in (0, 1):
        for end, tree in zip(ends, _ends(seen[half != number], left[half != number], size), strict=True):
            end[half == number] = tree.predict(seen[half == number], num_threads=1)
    starts = np.cumsum([len(part) for part in errors])[:-1]
    judged = [
        _judged(group, *parts)
        for group, *parts in zip(
            groups, errors, *(np.split(end, starts) for end in ends), halves, strict=True
        )
    ]
    return GEMMTrees(trial, *_ends(seen, left, size)), judged


def _ends(
    columns: FloatArray, errors: FloatArray, size: TreeSize
) -> tuple[lightgbm.Booster, lightgbm.Booster]:
    """Trees of the 5 and 95 % quantiles of ``errors``."""
    low, high = (
        train_trees(columns, errors, size.interval_trees, size.interval_leaves, 0.15, "quantile", alpha)
        for alpha in ((1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2)
    )
    return low, high


def _judged(
    group: GEMMGroup, errors: FloatArray, low: FloatArray, high: FloatArray, half: NDArray[np.int64]
) -> GEMMGroup:
    """With the widening that covers, and how each half is covered by the other half's widening."""
    score = np.maximum(low - errors, errors - high)
    others = np.array([_widening(score[half != number]) for number in (0, 1)])[half]
    widening = _widening(score)
    report = asdict(accuracy(np.exp(errors), np.ones(len(errors))))
    report["coverage"] = float((score <= others).mean())
    report["interval_ratio"] = float(np.median(np.exp(high - low + 2 * widening)))
    del report["r2"]  # of ratios: says nothing
    return replace(group, widening=widening, errors=report)


def _widening(score: FloatArray) -> float:
    rank = min(1.0, _COVERAGE * (1 + 1 / max(len(score), 1)))
    return float(np.quantile(score, rank)) if len(score) else 0.1
