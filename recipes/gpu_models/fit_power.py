"""Fit the power models that ship: ``python -m recipes.gpu_models.fit_power GEMM_TABLE ATTENTION_TABLE``.

Both tables are aiconfigurator's (Apache-2.0). Only readings of kernels of at least 0.1 ms are used.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from lapidist.hardware.gpu.attention_measurements import head_configs, read_attention_table, shapes_of
from lapidist.hardware.gpu.attention_phase import Phase, terms_of
from lapidist.hardware.gpu.data_sheet import DataSheet, load_data_sheet
from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.measurements import read_gemm_table
from lapidist.hardware.gpu.power_features import gemm_power_features
from lapidist.hardware.gpu.power_fit import fit_power
from lapidist.hardware.gpu.power_predictor import (
    BUNDLED,
    FittedPower,
    attention_power_features,
    write_power_models,
)
from lapidist.hardware.gpu.splits import drop_repeated_shapes

_SHORTEST_SECONDS = 0.1e-3
# On B200 a second collection of the same GEMMs differs by a quarter even for long kernels.
GEMMS = (
    ("h200_sxm", "bf16", True),
    ("h200_sxm", "fp8_block", True),
    ("b200_sxm", "bf16", False),
    ("b200_sxm", "fp8_block", False),
    ("b200_sxm", "nvfp4", False),
)


def fit_gemm_power(table: pd.DataFrame, sheet: DataSheet, dtype: str, reliable: bool) -> FittedPower:
    """``table``: rows of one GPU, backend, version and format with readings, each shape once."""
    m, n, k = (table[column].to_numpy(float) for column in ("m", "n", "k"))
    features = gemm_power_features(m, n, k, sheet, gemm_format(dtype))
    trees = 300 if reliable else 100
    return fit_power(features, table["watts"], sheet.tdp_watts, n * 1e6 + k, reliable, trees)


def fit_attention_power(table: pd.DataFrame, sheet: DataSheet, phase: Phase) -> FittedPower:
    features = terms_of(phase, shapes_of(table), sheet).features
    features = attention_power_features(features, table["seconds"].to_numpy(float))
    return fit_power(features, table["watts"], sheet.tdp_watts, head_configs(table), trees=120)


def main(gemm_path: Path, attention_path: Path, target: Path = BUNDLED) -> None:
    gemms = read_gemm_table(gemm_path)
    models: dict[str, dict[str, FittedPower]] = {}
    readable = gemms[
        gemms["watts"].notna() & (gemms["seconds"] >= _SHORTEST_SECONDS) & (gemms["backend"] == "VLLM")
    ]
    for system, dtype, reliable in track(GEMMS, description="GEMM power"):
        rows = readable[(readable["system"] == system) & (readable["dtype"] == dtype)]
        sheet = load_data_sheet(system)
        models.setdefault(sheet.name, {})[dtype] = fit_gemm_power(
            drop_repeated_shapes(rows), sheet, dtype, reliable
        )
    attention = read_attention_table(attention_path)
    attention = attention[attention["watts"].notna() & (attention["seconds"] >= _SHORTEST_SECONDS)]
    sheet = load_data_sheet("h200")
    phases: tuple[Phase, ...] = ("prefill", "decode")
    for phase in track(phases, description="attention power"):
        rows = attention[attention["phase"] == phase].reset_index(drop=True)
        models["h200"][phase] = fit_attention_power(rows, sheet, phase)
    target.parent.mkdir(exist_ok=True)
    write_power_models(target, models)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")
    for gpu, kinds in models.items():
        for kind, fitted in kinds.items():
            print(gpu, kind, "half widths", np.round(fitted.half_widths, 3))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
