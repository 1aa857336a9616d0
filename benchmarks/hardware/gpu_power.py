"""Power and energy of GEMMs and attention on held-out sites and head configurations.

``python -m benchmarks.hardware.gpu_power DATA`` with the folder of aiconfigurator's tables. Fits on the train part of
each split alone. Energy is predicted power times time, against measured power times measured time.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.result_file import write_result
from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.attention_fit import TreeSize, fit_phase
from lapidist.hardware.gpu.attention_measurements import head_config_holdout, read_attention_table, shapes_of
from lapidist.hardware.gpu.attention_phase import Phase
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.gemm_fit import TreeSize as GEMMTreeSize
from lapidist.hardware.gpu.gemm_fit import fit_gemm_models
from lapidist.hardware.gpu.measurements import read_gemm_table
from lapidist.hardware.gpu.power_predictor import PowerPredictor
from lapidist.hardware.gpu.splits import Split, drop_repeated_shapes, frontier, site20
from recipes.gpu_models.fit_power import GEMMS, fit_attention_power, fit_gemm_power

LONG_SECONDS = 0.2e-3


def gemm_rows(data: Path) -> list[dict[str, Any]]:
    table = read_gemm_table(data / "aiconfigurator_gemm.parquet")
    table = table[table["watts"].notna() & (table["backend"] == "VLLM")]
    every = table[table["system"] == "h200_sxm"]
    table = table[table["seconds"] >= LONG_SECONDS]
    found = []
    for system, dtype, reliable in GEMMS:
        rows = drop_repeated_shapes(table[(table["system"] == system) & (table["dtype"] == dtype)])
        sheet = load_data_sheet(system)
        splits = [site20(rows), *([frontier(rows)] if (system, dtype) == ("h200_sxm", "bf16") else [])]
        for split in splits:
            train, test = split.apply(rows)
            predictor = PowerPredictor(
                sheet, sheet.tdp_watts, {dtype: fit_gemm_power(train, sheet, dtype, reliable)}
            )
            m, n, k, seconds, watts = (test[c].to_numpy(float) for c in ("m", "n", "k", "seconds", "watts"))
            answer = predictor.gemm(m, n, k, seconds, dtype)
            constant = np.full(len(test), train["watts"].median())
            energy = {}
            if (system, dtype) == ("h200_sxm", "bf16"):
                predicted = gemm_seconds(every[every["dtype"] == dtype], test)
                joules = predictor.gemm(m, n, k, predicted, dtype).joules
                energy = {"energy_at_predicted_time": accuracy(watts * seconds, joules).to_dict()}
            found.append(
                {
                    **energy,
                    "gpu": sheet.name,
                    "kernel": dtype,
                    "split": split.name,
                    "power": accuracy(watts, answer.watts).to_dict(),
                    "constant_power": accuracy(watts, constant).to_dict(),
                    "energy_at_measured_time": accuracy(watts * seconds, answer.joules).to_dict(),
                    "coverage_90": float(
                        np.mean((watts >= answer.low * 0.998) & (watts <= answer.high * 1.002))
                    ),
                    "share_at_limit": float(np.mean(watts >= 0.95 * sheet.tdp_watts)),
                }
            )
    return found


def gemm_seconds(every: pd.DataFrame, test: pd.DataFrame) -> NDArray[np.float64]:
    """Times of ``test`` from a model fitted to the other (n, k) sites alone, short kernels included."""
    sites = pd.MultiIndex.from_frame(test[["n", "k"]]).unique()
    train = every[~pd.MultiIndex.from_frame(every[["n", "k"]]).isin(sites)]
    (pool,) = fit_gemm_models(train, GEMMTreeSize(trees=120))
    model = pool.model(pool.groups[0])
    return model.seconds(*(test[size].to_numpy(float) for size in "mnk"))[0]


def attention_rows(data: Path) -> list[dict[str, Any]]:
    table = read_attention_table(data / "aiconfigurator_attention.parquet")
    table = table[table["watts"].notna() & (table["seconds"] >= LONG_SECONDS)]
    sheet, found = load_data_sheet("h200"), []
    phases: tuple[Phase, ...] = ("prefill", "decode")
    for phase in phases:
        rows = table[table["phase"] == phase].reset_index(drop=True)
        split: Split = head_config_holdout(rows)
        train, test = (part.reset_index(drop=True) for part in split.apply(rows))
        predictor = PowerPredictor(sheet, sheet.tdp_watts, {phase: fit_attention_power(train, sheet, phase)})
        time = fit_phase(train, sheet, TreeSize(), conformal=False)
        shapes, seconds, watts = (
            shapes_of(test),
            test["seconds"].to_numpy(float),
            test["watts"].to_numpy(float),
        )
        predicted_seconds = time.seconds(shapes, sheet)[0]
        answer = predictor.attention(shapes, predicted_seconds)
        found.append(
            {
                "gpu": sheet.name,
                "kernel": phase,
                "split": split.name,
                "power": accuracy(watts, answer.watts).to_dict(),
                "energy_at_predicted_time": accuracy(watts * seconds, answer.joules).to_dict(),
                "coverage_90": float(np.mean((watts >= answer.low * 0.998) & (watts <= answer.high * 1.002))),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    rows = [*gemm_rows(data), *attention_rows(data)]
    for row in rows:
        power = row["power"]
        print(
            f"{row['gpu']:>5} {row['kernel']:>10} {row['split']:>22}: power median {power['median_ape']:.2%} "
            f"MAPE {power['mape']:.2%}, covered {row['coverage_90']:.1%}"
            + (
                f", energy median {row[key]['median_ape']:.2%}"
                if (key := "energy_at_predicted_time") in row
                else ""
            )
        )
    print(write_result("gpu_power", {"shortest_seconds": LONG_SECONDS, "rows": rows}))


if __name__ == "__main__":
    main()
