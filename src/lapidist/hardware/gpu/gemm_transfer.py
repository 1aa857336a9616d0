"""GEMMs on a GPU that nobody measured: one analytical model for all GPUs, trees on what is left, honest intervals.

How far off it is for a new GPU is found by leaving each measured one out, together with its siblings.
"""

from collections.abc import Sequence
from dataclasses import replace

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lapidist.hardware.gpu.gemm_fit import FittedPool, GEMMRows, TreeSize, columns_and_target, train_trees
from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.gemm_model import GEMMGroup, GEMMTrees, size_range
from lapidist.hardware.gpu.gemm_roofline import FloatArray, RooflineParameters, fit_roofline_to_many

ANY = "any"
TRANSFER_SIZE = TreeSize(trees=50, leaves=63, learning_rate=0.05)  # little: GPUs differ
_ROWS_PER_GPU = 8000
_COVERAGE = 0.9


def fit_transfer(
    members: Sequence[GEMMRows], size: TreeSize = TRANSFER_SIZE, judge: bool = True
) -> FittedPool:
    """One model of a format for any GPU, each measured GPU with the same weight.

    Without ``judge`` nothing is left out and the interval is that of the rows fitted on: for tests of the accuracy.

    Raises
    ------
    ValueError : no rows, or rows of several formats.
    """
    formats = {rows.dtype for rows in members}
    if len(formats) != 1:
        raise ValueError(f"a transfer model is of one format, got {len(formats)}")
    sampled = [_sample(rows, number) for number, rows in enumerate(members)]
    families = [(rows.sheet.architecture, rows.sheet.compute_capability.split(".")[0]) for rows in sampled]
    columns: list[FloatArray] = []
    errors: list[FloatArray] = []
    for family in sorted(set(families)) if judge and len(set(families)) > 1 else []:
        others = [rows for rows, own in zip(sampled, families, strict=True) if own != family]
        parameters, trees = _fit(others, size)
        for rows in (rows for rows, own in zip(sampled, families, strict=True) if own == family):
            seen, target = columns_and_target(rows, _group(rows, parameters))
            columns.append(seen)
            errors.append(target - np.asarray(trees.predict(seen, num_threads=1)))
    parameters, residual = _fit(sampled, size)
    if not errors:
        for rows in sampled:
            seen, target = columns_and_target(rows, _group(rows, parameters))
            columns.append(seen)
            errors.append(target - np.asarray(residual.predict(seen, num_threads=1)))
    every = GEMMRows(
        sampled[0].sheet, (ANY, ANY, ""), sampled[0].dtype, pd.concat([r.frame for r in sampled])
    )
    group = replace(_group(every, parameters), errors=_report(errors))
    low, high = _quantiles(np.concatenate(columns), np.concatenate(errors), size)
    return FittedPool(f"{ANY}-{group.dtype}", (group,), GEMMTrees(residual, low, high))


def _sample(rows: GEMMRows, seed: int) -> GEMMRows:
    if len(rows.frame) <= _ROWS_PER_GPU:
        return rows
    chosen = np.random.RandomState(seed).permutation(len(rows.frame))[:_ROWS_PER_GPU]
    return replace(rows, frame=rows.frame.iloc[np.sort(chosen)].reset_index(drop=True))


def _fit(members: Sequence[GEMMRows], size: TreeSize) -> tuple[RooflineParameters, lightgbm.Booster]:
    form = gemm_format(members[0].dtype)
    parameters = fit_roofline_to_many([(*rows.sizes(), rows.sheet, form) for rows in members])
    parts = [columns_and_target(rows, _group(rows, parameters)) for rows in members]
    columns, target = (np.concatenate(part) for part in zip(*parts, strict=True))
    return parameters, train_trees(columns, target, size.trees, size.leaves, size.learning_rate, "l1")


def _group(rows: GEMMRows, parameters: RooflineParameters) -> GEMMGroup:
    m, n, k, seconds = rows.sizes()
    smallest, largest = size_range(m, n, k)
    return GEMMGroup(
        gpu=ANY,
        backend=ANY,
        version="",
        dtype=rows.dtype,
        number=0,
        parameters=parameters,
        smallest=smallest,
        largest=largest,
        shortest_seconds=float(seconds.min()),
        rows=len(m),
    )


def _quantiles(columns: FloatArray, errors: FloatArray, size: TreeSize) -> tuple[lightgbm.Booster, ...]:
    miss = (1 - _COVERAGE) / 2
    return tuple(
        train_trees(columns, errors, size.interval_trees, size.interval_leaves, 0.15, "quantile", alpha)
        for alpha in (miss, 1 - miss)
    )


def _report(errors: Sequence[FloatArray]) -> dict[str, float]:
    """Mean over GPUs of the mean and the median APE, each GPU left out of the fit."""
    apes: list[NDArray[np.float64]] = [np.abs(np.exp(-error) - 1) for error in errors]
    return {
        "mape": float(np.mean([ape.mean() for ape in apes])),
        "median_ape": float(np.mean([np.median(ape) for ape in apes])),
        "count": float(sum(map(len, apes))),
    }
