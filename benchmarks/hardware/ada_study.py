"""The study of GEMM on an RTX 4070 (arXiv 2411.16954) redone, with the goals that are set for it.

    python -m benchmarks.hardware.ada_study ../shared/data/gemm_predictor

Writes every model's accuracy under every split to ``results/ada_study.json``. The measurements have no licence and are
no part of the repository.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result_file import write_result
from lapidist.cli.gpu_reproduce_report import sentences, to_json
from lapidist.hardware.gpu.ada_data import read_ada_data
from lapidist.hardware.gpu.ada_predictors import ours
from lapidist.hardware.gpu.ada_study import (
    LARGER_M,
    LARGER_WORK,
    LEAVE_ONE_SHAPE_OUT,
    MEDIANS,
    OURS,
    OWN_SPLIT,
    PAPER,
    POOL,
    SHAPES,
    AdaStudy,
    extrapolations,
    run_ada_study,
)
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.splits import leave_one_out, shape_labels
from lapidist.hardware.gpu.wave_law import start_law

FEW = 50


def goals(study: AdaStudy) -> list[dict[str, Any]]:
    """What was asked for, what was found, and whether it is met."""
    runtime = study.find(POOL, OWN_SPLIT, "runtime_ms", PAPER).accuracy
    power = study.find(POOL, OWN_SPLIT, "power_w", PAPER).accuracy
    grouped = study.find(POOL, SHAPES, "runtime_ms", PAPER).accuracy
    unseen = study.find(MEDIANS, LEAVE_ONE_SHAPE_OUT, "runtime_ms", OURS).accuracy
    larger_m = study.find(MEDIANS, LARGER_M, "runtime_ms", OURS).accuracy
    larger = study.find(MEDIANS, LARGER_WORK, "runtime_ms", OURS).accuracy
    rows = [
        ("published run time R²", "0.981 ± 0.003", runtime.r2, abs(runtime.r2 - 0.981) <= 0.003),
        ("published run time mean error", "15.6 ± 0.7 %", runtime.mape, abs(runtime.mape - 0.156) <= 0.007),
        ("published power R²", "0.78 ± 0.02", power.r2, abs(power.r2 - 0.78) <= 0.02),
        ("published recipe, shapes held out, R²", "at most 0.6", grouped.r2, grouped.r2 <= 0.6),
        ("published recipe, shapes held out, mean error", "at least 60 %", grouped.mape, grouped.mape >= 0.6),
        ("ours, unseen shapes, mean error", "at most 0.9 %", unseen.mape, unseen.mape <= 0.009),
        ("ours, unseen shapes, largest error", "at most 8 %", unseen.max_ape, unseen.max_ape <= 0.08),
        ("ours, M <= 2048 to 128256, mean error", "at most 3 %", larger_m.mape, larger_m.mape <= 0.03),
        ("ours, MNK <= 2^31 to larger, mean error", "at most 2.3 %", larger.mape, larger.mape <= 0.023),
    ]
    return [{"what": what, "goal": goal, "found": found, "met": bool(met)} for what, goal, found, met in rows]


def drift_sensitivity(study: AdaStudy) -> dict[str, dict[str, float]]:
    """Our mean errors if the lock step took another number of waves to decay than the law's ten."""
    medians, start = study.medians, start_law(load_data_sheet("rtx-4070"))
    splits = {LEAVE_ONE_SHAPE_OUT: list(leave_one_out(shape_labels(medians, "MNK")))} | extrapolations(
        medians
    )
    found: dict[str, dict[str, float]] = {}
    for waves in (3.0, 6.0, 10.0, 15.0, 20.0):
        predict = ours(replace(start, drift_waves=waves))
        for name, folds in splits.items():
            errors = []
            for fold in folds:
                train, test = fold.apply(medians)
                errors.append(np.abs(predict(train, test) / test["runtime_ms"].to_numpy() - 1))
            found.setdefault(name, {})[f"{waves:g}"] = float(np.concatenate(errors).mean())
    return found


def one_factor(study: AdaStudy) -> dict[str, float]:
    """The data sheet's law before any fit, and scaled by the median of 50 random measurements (mean of 200 draws)."""
    logs = np.log(study.medians["runtime_ms"].to_numpy() / 1e3)
    over = logs - start_law(load_data_sheet("rtx-4070")).log_seconds(study.medians)
    errors = []
    for draw in range(200):
        order = np.random.RandomState(draw).permutation(len(over))
        factor = np.median(over[order[:FEW]])
        errors.append(np.abs(np.exp(factor - over[order[FEW:]]) - 1).mean())
    return {"none": float(np.abs(np.exp(-over) - 1).mean()), "one factor": float(np.mean(errors))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with the study's measurements")
    arguments = parser.parse_args()
    study = run_ada_study(
        read_ada_data(arguments.data), lambda step, done, total: print(f"{done}/{total} {step}")
    )
    found = goals(study)
    for row in found:
        print(f"{'met   ' if row['met'] else 'MISSED'} {row['what']}: {row['found']:.4f} ({row['goal']})")
    file = write_result(
        "ada_study",
        {
            "goals": found,
            "drift_sensitivity": drift_sensitivity(study),
            "law_of_the_data_sheet": one_factor(study),
            "sentences": sentences(study),
            **to_json(study),
        },
    )
    print(f"saved {file}")


if __name__ == "__main__":
    main()
