"""Fused mixture-of-experts layers against measurements: models that a fit has not seen, and the rows that ship.

    python -m benchmarks.hardware.gpu_moe TABLE

TABLE is aiconfigurator's MoE table (Apache-2.0): SGLang's Triton and Marlin kernels on H100, H200, A100 and L40S. A
model is one (hidden, inner, top_k, experts); a fifth of the models is left out at a time, on all GPUs and formats at
once. The interval's half width is the 90 % quantile of these errors, so that its coverage is told by halves of the
models: the width of one half, the coverage of the other. Writes ``results/gpu_moe.json``.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.result_file import write_result
from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.moe_fit import held_out_errors, models_of, read_moe_table, terms_of_table
from lapidist.hardware.gpu.moe_predictor import BUNDLED, moe_predictor

FloatArray = NDArray[np.float64]
_SHAPE = ("tokens", "hidden", "inner", "top_k", "experts", "tensor_parallel", "expert_parallel", "skew")
_COVERAGE = 0.9


def shipped_errors(table: pd.DataFrame) -> FloatArray:
    """``ln(measured / predicted)`` of the rows that the shipped model was fitted on."""
    error = np.empty(len(table))
    for (system, dtype), rows in table.groupby(["system", "dtype"]).indices.items():
        part = table.iloc[rows]
        arguments: list[Any] = [*(part[name].to_numpy() for name in _SHAPE), str(dtype)]
        found = moe_predictor(str(system)).predict(*arguments)
        error[rows] = np.log(part["seconds"].to_numpy() / found.seconds)
    return error


def judge(errors: FloatArray) -> dict[str, float]:
    found = accuracy(np.exp(errors), np.ones(len(errors))).to_dict()
    return {name: found[name] for name in ("count", "median_ape", "mape", "p90_ape", "median_bias")}


def coverage(errors: FloatArray, models: NDArray[np.str_]) -> dict[str, float]:
    """A half width from every second model, and the part of the others' rows inside of it."""
    first = np.isin(models, np.unique(models)[::2])
    width = float(np.quantile(np.abs(errors[first]), _COVERAGE))
    return {"half_width": width, "coverage_90": float((np.abs(errors[~first]) <= width).mean())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    table = read_moe_table(parser.parse_args().table)
    models, law = models_of(table), terms_of_table(table).law
    held, own = held_out_errors(table), shipped_errors(table)
    rows: list[dict[str, Any]] = []
    for (system, dtype), part in table.groupby(["system", "dtype"]).indices.items():
        gpu = load_data_sheet(str(system)).name
        rows.append(
            {"gpu": gpu, "dtype": dtype, "unseen_models": judge(held[part]), "shipped": judge(own[part])}
        )
        unseen = rows[-1]["unseen_models"]
        print(
            f"{gpu} {dtype}: {len(part)} rows, unseen models {unseen['median_ape']:.1%} / {unseen['mape']:.1%}"
        )
    every: dict[str, Any] = {
        "models": len(np.unique(models)),
        "unseen_models": judge(held) | coverage(held, models),
        "shipped": judge(own),
        "law_alone": judge(np.log(table["seconds"].to_numpy() / law)),
    }
    for name in ("unseen_models", "shipped", "law_alone"):
        print(f"{name}: median {every[name]['median_ape']:.1%}, mean {every[name]['mape']:.1%}")
    print(write_result("gpu_moe", {"all": every, "rows": rows, "file_bytes": BUNDLED.stat().st_size}))


if __name__ == "__main__":
    main()
