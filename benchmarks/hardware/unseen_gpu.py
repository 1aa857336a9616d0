"""Single-precision GEMM on a GPU without a measurement: each GPU of NeuSight's train part left out in turn.

    python -m benchmarks.hardware.unseen_gpu ../shared/data/gemm_predictor

NeuSight's measurements (MIT; sitar-lab/NeuSight, ASPLOS 2025) of P4, P100, V100, T4 and A100-40GB; its test GPUs (H100,
A100-80GB, L4) are not in the data folder. Writes ``results/unseen_gpu.json``.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.result_file import write_result
from lapidist.hardware.gpu.accuracy import Accuracy, accuracy
from lapidist.hardware.gpu.data_sheet import DataSheet, load_data_sheet
from lapidist.hardware.gpu.splits import few_points, grouped_folds, leave_one_out, shape_labels
from lapidist.hardware.gpu.unseen_gpu import UnseenGPUModel

FILE = "neusight_fp32_gemm_train.parquet"
SHEETS = {
    "Tesla P4": "p4",
    "Tesla P100-PCIE-16GB": "p100",
    "Tesla V100-PCIE-32GB": "v100-pcie",
    "Tesla T4": "t4",
    "NVIDIA A100-PCIE-40GB": "a100-pcie-40gb",
}
_A100 = "a100-pcie-40gb"
OPERATORS = ("linear", "bmm")


def read_neusight(path: Path) -> pd.DataFrame:
    """The rows in the model's columns; ``gpu`` is the name of a data sheet, ``op`` linear or bmm."""
    table = pd.read_parquet(path)
    rows = table[["B", "M", "N", "K"]].set_axis(["batch", "m", "n", "k"], axis=1)
    gpu = table["device"].astype(str).map(SHEETS)
    return rows.assign(gpu=gpu, op=table["op"].astype(str), seconds=table["latency_ms"].astype(float) / 1e3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help=f"folder with {FILE}")
    table = read_neusight(parser.parse_args().data / FILE)
    sheets = {name: load_data_sheet(name) for name in SHEETS.values()}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for op in OPERATORS:
        rows = table[table["op"] == op].reset_index(drop=True)
        for split in leave_one_out(rows["gpu"]):
            train, test = split.apply(rows)
            model = UnseenGPUModel.fit(train, sheets, sheets[split.name])
            predicted = model.seconds(test)
            judged, scaled = (
                accuracy(test["seconds"], predicted),
                scaled_by_points(test["seconds"], predicted),
            )
            found.setdefault(op, {})[split.name] = judged.to_dict() | {"mape_scaled_by_50_points": scaled}
            print(f"{op:6} {split.name:15} MAPE {judged.mape:.1%}, scaled {scaled:.1%}", flush=True)
        twin = sibling_measured(rows, sheets)
        found[op]["a100-pcie-40gb, a twin measured on other shapes"] = twin.to_dict()
        print(f"{op:6} twin of {_A100} MAPE {twin.mape:.1%}, median {twin.median_ape:.1%}", flush=True)
    print(write_result("unseen_gpu", {"left_out": found}))


def scaled_by_points(measured: pd.Series, predicted: "np.ndarray[Any, Any]") -> float:
    """Mean error on the rest once 50 rows of the new GPU have given one factor for all."""
    points, seconds = few_points(len(predicted), 50), measured.to_numpy()
    factor = np.median(seconds[points.train] / predicted[points.train])
    return accuracy(seconds[points.test], factor * predicted[points.test]).mape


def sibling_measured(rows: pd.DataFrame, sheets: dict[str, DataSheet]) -> Accuracy:
    """An A100 asked about when another A100 is measured, on other shapes: two folds of them."""
    own = rows["gpu"] == _A100
    twin = sheets[_A100].model_copy(update={"name": "a100-pcie-40gb-twin"})
    first, second = grouped_folds(shape_labels(rows, ("batch", "m", "n", "k")), 2)
    measured, predicted = [], []
    for fold in (first, second):
        train, test = fold.apply(rows)
        test = test[own.iloc[fold.test]]
        predicted.append(UnseenGPUModel.fit(train, sheets, twin).seconds(test))
        measured.append(test["seconds"])
    return accuracy(np.concatenate(measured), np.concatenate(predicted))


if __name__ == "__main__":
    main()
