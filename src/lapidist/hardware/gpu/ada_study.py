"""The Ada study (Liu and Halim, arXiv 2411.16954) redone: its table, its model under other splits, ours beside it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lapidist.hardware.gpu.accuracy import Accuracy, accuracy
from lapidist.hardware.gpu.ada_data import CONFIGURATION, AdaData, clean_medians
from lapidist.hardware.gpu.ada_predictors import (
    Predictor,
    boosted_trees,
    median_per_shape,
    ours,
    ours_on_pool,
    paper_forest,
    scaled_roofline,
    wave_law,
)
from lapidist.hardware.gpu.data_sheet import DataSheet, load_data_sheet
from lapidist.hardware.gpu.leakage import check_no_leakage
from lapidist.hardware.gpu.paper_recipe import (
    TARGETS,
    clipped_like_the_paper,
    paper_split,
    repeated_in_train,
)
from lapidist.hardware.gpu.sgemm_model import SgemmModel
from lapidist.hardware.gpu.splits import Split, grouped_folds, leave_one_out, shape_labels, split_by_mask
from lapidist.hardware.gpu.tile_sweep import TileRow, published_claims, tile_sweep
from lapidist.hardware.gpu.wave_law import start_law

FloatArray = NDArray[np.float64]
Progress = Callable[[str, int, int], None]

PAPER, OURS, WAVE_LAW = "paper's forest", "ours", "wave law alone"
LOOKUP, ONE_BIT = "median per shape", "one bit: foreign job"
BOOSTED, ROOFLINE = "LightGBM on log time", "roofline x one scale"
POOL, MEDIANS = "published pool", "clean medians"
OWN_SPLIT = "random rows"
LEAVE_ONE_SHAPE_OUT = "leave one shape out"
SHAPES = "shapes in 6 folds"
LARGER_M, LARGER_WORK = "M <= 2048 to 128256", "MNK <= 2^31 to larger"
_FEWEST_SHAPES = 12


@dataclass(frozen=True, eq=False)
class Result:
    """One model under one split; positions and predictions are of all the split's test rows, fold after fold."""

    data: str
    split: str
    target: str
    model: str
    accuracy: Accuracy
    rows: NDArray[np.int64]
    predicted: FloatArray

    def to_dict(self) -> dict[str, Any]:
        named = {"data": self.data, "split": self.split, "target": self.target, "model": self.model}
        return named | self.accuracy.to_dict()


@dataclass(frozen=True, eq=False)
class AdaStudy:
    """Everything that the report shows.

    Attributes
    ----------
    pool : the study's rows, targets clipped as there. ``medians``: the uncontended configurations.
    facts : what the data themselves say, by name. ``tiles``: the naive kernel's sweep.
    """

    pool: pd.DataFrame
    medians: pd.DataFrame
    results: tuple[Result, ...]
    tiles: tuple[TileRow, ...]
    facts: Mapping[str, Any]

    def find(self, data: str, split: str, target: str, model: str) -> Result:
        """Raises KeyError where the study has no such result."""
        for result in self.results:
            if (result.data, result.split, result.target, result.model) == (data, split, target, model):
                return result
        raise KeyError((data, split, target, model))


def run_ada_study(data: AdaData, progress: Progress = lambda step, done, total: None) -> AdaStudy:
    """Fit and judge everything; about a minute on one core.

    Raises
    ------
    ValueError : the rows are too few for the splits.
    """
    sheet = load_data_sheet("rtx-4070")
    pool, medians = clipped_like_the_paper(data.pool, data.runs), clean_medians(data.runs)
    shapes = medians.groupby(["M", "N", "K"]).ngroups
    if shapes < _FEWEST_SHAPES:
        raise ValueError(
            f"the study needs at least {_FEWEST_SHAPES} shapes with repeated uncontended runs, got {shapes}"
        )
    tasks = [*_pool_tasks(pool, sheet), *_median_tasks(medians, sheet)]
    results = []
    for done, task in enumerate(tasks):
        progress(f"{task.model}: {task.split}", done, len(tasks))
        results.append(task.run())
    progress("intervals", len(tasks), len(tasks))
    tiles = tuple(tile_sweep(data.naive))
    facts = _facts(data, pool) | {
        "interval_coverage": _coverage(medians, sheet),
        "tile_claims": published_claims(list(tiles)),
    }
    return AdaStudy(pool, medians, tuple(results), tiles, facts)


@dataclass(frozen=True, eq=False)
class _Task:
    data: str
    rows: pd.DataFrame
    split: str
    folds: Sequence[Split]
    target: str
    model: str
    predict: Predictor

    def run(self) -> Result:
        if self.split != OWN_SPLIT:  # which repeats its rows, as is to be shown
            for fold in self.folds:
                check_no_leakage(*fold.apply(self.rows), key=("M", "N", "K"))
        rows = np.concatenate([fold.test for fold in self.folds])
        predicted = np.concatenate([self.predict(*fold.apply(self.rows)) for fold in self.folds])
        found = accuracy(self.rows[self.target].to_numpy()[rows], predicted)
        return Result(self.data, self.split, self.target, self.model, found, rows, predicted)


def extrapolations(rows: pd.DataFrame) -> dict[str, list[Split]]:
    """To 60 times the rows, and to more work than any GEMM of the train part."""
    work = rows["M"].astype(float) * rows["N"] * rows["K"]
    return {
        LARGER_M: [split_by_mask(LARGER_M, rows["M"] > 2048)],
        LARGER_WORK: [split_by_mask(LARGER_WORK, work > 2**31)],
    }


def _pool_tasks(pool: pd.DataFrame, sheet: DataSheet) -> list[_Task]:
    shapes = shape_labels(pool, "MNK")
    splits = {OWN_SPLIT: [paper_split(len(pool))], SHAPES: list(grouped_folds(shapes, 6))}
    splits |= extrapolations(pool)
    tasks = []
    for split, folds in splits.items():
        for target in TARGETS:
            models: dict[str, Predictor] = {PAPER: paper_forest(target), OURS: ours_on_pool(target, sheet)}
            if target == "power_w":
                models[ONE_BIT] = models.pop(OURS)
            if split == OWN_SPLIT:
                models[LOOKUP] = median_per_shape(target)
            tasks += [_Task(POOL, pool, split, folds, target, name, model) for name, model in models.items()]
    return tasks


def _median_tasks(medians: pd.DataFrame, sheet: DataSheet) -> list[_Task]:
    # The study's features include block sizes, which are constant here, as they were for the kernel.
    rows = medians.assign(block_m=128, block_n=128, block_k=32)
    shapes = shape_labels(rows, "MNK")
    splits = {LEAVE_ONE_SHAPE_OUT: list(leave_one_out(shapes)), SHAPES: list(grouped_folds(shapes, 6))}
    splits |= extrapolations(rows)
    models: dict[str, Predictor] = {
        PAPER: paper_forest("runtime_ms"),
        BOOSTED: boosted_trees,
        ROOFLINE: scaled_roofline(sheet),
        WAVE_LAW: wave_law(start_law(sheet)),
        OURS: ours(start_law(sheet)),
    }
    return [
        _Task(MEDIANS, rows, split, folds, "runtime_ms", name, model)
        for split, folds in splits.items()
        for name, model in models.items()
    ]


def _coverage(medians: pd.DataFrame, sheet: DataSheet) -> dict[str, dict[str, float]]:
    """How often our 90 % interval holds the measurement, and its median width as a ratio."""
    shapes = shape_labels(medians, "MNK")
    splits = {LEAVE_ONE_SHAPE_OUT: list(leave_one_out(shapes))} | extrapolations(medians)
    found = {}
    for name, folds in splits.items():
        inside, ratios = [], []
        for fold in folds:
            train, test = fold.apply(medians)
            model = SgemmModel.fit(start_law(sheet), train, train["runtime_ms"].to_numpy() / 1e3)
            low, high = model.interval(test)
            seconds = test["runtime_ms"].to_numpy() / 1e3
            inside.append((low <= seconds) & (seconds <= high))
            ratios.append(high / low)
        found[name] = {
            "coverage": float(np.concatenate(inside).mean()),
            "median_ratio": float(np.median(np.concatenate(ratios))),
        }
    return found


def _facts(data: AdaData, pool: pd.DataFrame) -> dict[str, Any]:
    """What is wrong with the rows that the study's model was trained on."""
    clean_pool, runs = pool[pool["uncontended"]], data.runs
    return {
        "runs": len(runs),
        "pool": len(pool),
        "distinct_shapes": int(runs.groupby(["M", "N", "K"]).ngroups),
        "distinct_configurations": int(runs.groupby(CONFIGURATION).ngroups),
        "test_rows_repeated_in_train": repeated_in_train(pool, paper_split(len(pool))),
        "pool_contended_share": float((~pool["uncontended"]).mean()),
        "power_read_contended_share": float(runs.loc[~runs["uncontended"], "in_pool"].mean()),
        "power_read_clean_share": float(runs.loc[runs["uncontended"], "in_pool"].mean()),
        "clean_watts_mean": float(clean_pool["power_w"].mean()),
        "clean_watts_deviation": float(clean_pool["power_w"].std()),
        "foreign_watts_mean": float(pool.loc[pool["foreign_job"], "power_w"].mean()),
        "repeatability_median": _repeatability(runs),
        "energy_over_power_times_time": float(
            (runs["energy_j"] / (runs["power_w"] * runs["runtime_ms"] / 1e3)).mean()
        ),
    }


def _repeatability(runs: pd.DataFrame) -> float:
    """Median distance of an uncontended run from its configuration's median: no model can be judged finer."""
    clean = runs[runs["uncontended"]]
    middle = clean.groupby(CONFIGURATION)["runtime_ms"].transform("median")
    return float(np.median(np.abs(clean["runtime_ms"] / middle - 1)))
