"""Choosing tile sizes of a 4096^3 single-precision GEMM by a model instead of by trying all.

    python -m benchmarks.hardware.tile_selection ../shared/data/gemm_predictor

Kernel Tuner's measurements of CLBlast on four GPUs (MIT; AutoTuningAssociation/benchmark_hub). Within a GPU, a fifth
of the configurations are held out; across GPUs, a model of the other three is given 20 random configurations of the new
one (ten draws). Regret is that of trying the ten configurations that the model likes best. Writes
``results/tile_selection.json``.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.preprocessing import StandardScaler

from benchmarks.result_file import write_result
from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.splits import Split, few_points
from lapidist.hardware.gpu.tile_selection import (
    PARAMETERS,
    TileTimeModel,
    TransferredTileModel,
    regret,
)

FILE = "kerneltuner_clblast_gemm4096_tiles.parquet"
DRAWS = 10
POINTS = 20


def within_gpu(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Ours and the Ada study's recipe (a forest of depth 6 on the raw parameters), four fifths to learn from."""
    split = few_points(len(rows), len(rows) - len(rows) // 5)
    train, test = split.apply(rows)
    ours = TileTimeModel.fit(train, train["time_ms"]).milliseconds(test)
    scaler = StandardScaler().fit(train[list(PARAMETERS)].to_numpy())
    forest = RandomForestRegressor(n_estimators=100, max_depth=6, random_state=0)
    forest.fit(scaler.transform(train[list(PARAMETERS)].to_numpy()), train["time_ms"])
    paper = forest.predict(scaler.transform(test[list(PARAMETERS)].to_numpy()))
    measured = test["time_ms"].to_numpy(dtype=float)
    return {"ours": _judge(measured, ours), "paper's recipe": _judge(measured, paper)}


def across_gpus(name: str, models: dict[str, TileTimeModel], rows: pd.DataFrame) -> dict[str, float]:
    """Mean over the draws of the 20 measured configurations, and the worst draw."""
    others = [model for gpu, model in models.items() if gpu != name]
    draws = [_transfer(others, rows, few_points(len(rows), POINTS, seed)) for seed in range(DRAWS)]
    found = {key: float(np.mean([draw[key] for draw in draws])) for key in draws[0]}
    return found | {"worst_top_10_regret": max(draw["top_10_regret"] for draw in draws)}


def _transfer(others: list[TileTimeModel], rows: pd.DataFrame, split: Split) -> dict[str, float]:
    measured, rest = split.apply(rows)
    model = TransferredTileModel.fit(others, measured, measured["time_ms"])
    return _judge(rest["time_ms"].to_numpy(dtype=float), model.milliseconds(rest))


def _judge(measured: "np.ndarray[Any, Any]", predicted: "np.ndarray[Any, Any]") -> dict[str, float]:
    found = accuracy(measured, predicted)
    return {
        "median_ape": found.median_ape,
        "mape": found.mape,
        "top_1_regret": regret(measured, predicted, 1),
        "top_10_regret": regret(measured, predicted, 10),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help=f"folder with {FILE}")
    table = pd.read_parquet(parser.parse_args().data / FILE)
    gpus = {str(name): rows.reset_index(drop=True) for name, rows in table.groupby("gpu")}
    within = {name: within_gpu(rows) for name, rows in gpus.items()}
    models = {name: TileTimeModel.fit(rows, rows["time_ms"]) for name, rows in gpus.items()}
    across = {name: across_gpus(name, models, rows) for name, rows in gpus.items()}
    for name in gpus:
        print(name)
        for label, found in (*within[name].items(), (f"other GPUs and {POINTS} points", across[name])):
            print(f"  {label}: " + ", ".join(f"{key} {value:.2%}" for key, value in found.items()))
    goals = [
        (
            "within a GPU, median error",
            "at most 2 %",
            max(w["ours"]["median_ape"] for w in within.values()),
            0.02,
        ),
        (
            "within a GPU, top-10 regret",
            "at most 3 %",
            max(w["ours"]["top_10_regret"] for w in within.values()),
            0.03,
        ),
        (
            "new GPU, 20 points, top-10 regret",
            "at most 10 %",
            max(a["top_10_regret"] for a in across.values()),
            0.1,
        ),
    ]
    rows = [
        {"what": what, "goal": goal, "worst_gpu": found, "met": found <= most}
        for what, goal, found, most in goals
    ]
    for row in rows:
        print(row)
    print(write_result("tile_selection", {"goals": rows, "within": within, "across": across}))


if __name__ == "__main__":
    main()
