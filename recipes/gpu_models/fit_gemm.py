"""Fits the GEMM models that ship with Lapidist: ``python -m recipes.gpu_models.fit_gemm DATA OUT``.

DATA is a folder with ``aiconfigurator_gemm.parquet`` (NVIDIA aiconfigurator, Apache-2.0); OUT is the file of models,
in the repository ``src/lapidist/hardware/gpu/fitted/gemm.zip``. One core fits them in about eight minutes. Tables of
vLLM's fp8_block kernels are left out: from 0.22 on they hold the host's overhead, not the kernel's time.
"""

import argparse
from pathlib import Path

import pandas as pd

from lapidist.cli.progress import progress_bar
from lapidist.hardware.gpu.gemm_fit import FittedPool, GEMMRows, TreeSize, fit_pool, pools_of
from lapidist.hardware.gpu.gemm_store import write_gemm_models
from lapidist.hardware.gpu.gemm_transfer import FittedTransfer, fit_transfer
from lapidist.hardware.gpu.measurements import read_gemm_table

# Groups whose sites decide what a trial fit leaves out, and that the transfer models learn from.
REFERENCES = (
    ("a100", "VLLM", "0.14.0"),
    ("b200", "TRTLLM", "1.3.0rc20"),
    ("h100", "TRTLLM", "1.3.0rc20"),
    ("h200", "TRTLLM", "1.3.0rc20"),
    ("l40s", "TRTLLM", "1.3.0rc20"),
    ("rtx-pro-6000", "TRTLLM", "1.3.0rc20"),
)
OLDER_REFERENCES = (
    ("a100", "TRTLLM", "1.0.0"),
    ("h200", "TRTLLM", "1.2.0rc5"),
    ("l40s", "TRTLLM", "1.0.0"),
)
FEW_ROWS, MANY_ROWS = 40_000, 135_000


def shipped_size(name: str, rows: int) -> TreeSize:
    """Trees of a pool by what they are asked for: bf16 most, then the others, tables of a few thousand rows least."""
    if name in SPREAD:
        return SPREAD[name]
    if rows < FEW_ROWS:
        return _jumping(trees=100, leaves=63, learning_rate=0.1)
    if name.endswith("-bf16"):
        return TreeSize(trees=400, learning_rate=0.05)
    return _jumping(trees=130 if rows > MANY_ROWS else 100, learning_rate=0.15)


def _jumping(trees: int, learning_rate: float, leaves: int = 255) -> TreeSize:
    """For times that jump where another kernel or L2 takes over, by more than they scatter."""
    return TreeSize(trees, leaves, learning_rate, objective="l1", depth=12)


# Pools whose collections differ the most among themselves: trees that learn more slowly.
SPREAD = {
    "ada-8.9-bf16": _jumping(trees=240, learning_rate=0.05),
    "ada-8.9-fp8": _jumping(trees=150, learning_rate=0.1),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    table = usable(read_gemm_table(args.data / "aiconfigurator_gemm.parquet"))
    pools, transfers = pools_of(table), transfer_members(table)
    fitted: list[FittedPool | FittedTransfer] = []
    with progress_bar() as progress:
        for number, (name, members) in enumerate(pools.items()):
            progress(name, number, len(pools) + len(transfers))
            fitted.append(fit_shipped(name, members))
        for number, (dtype, members) in enumerate(transfers.items()):
            progress(f"any GPU, {dtype}", len(pools) + number, len(pools) + len(transfers))
            fitted.append(fit_transfer(members))
    write_gemm_models(args.out, fitted)


def fit_shipped(name: str, members: list[GEMMRows]) -> FittedPool:
    rows = sum(len(each.frame) for each in members)
    return fit_pool(name, members, shipped_size(name, rows), (*REFERENCES, *OLDER_REFERENCES))


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """Without vLLM's fp8_block rows."""
    return table[~((table["backend"] == "VLLM") & (table["dtype"] == "fp8_block"))].reset_index(drop=True)


def transfer_members(table: pd.DataFrame) -> dict[str, list[GEMMRows]]:
    """By format, the reference group of every GPU that has one."""
    members: dict[str, list[GEMMRows]] = {}
    every = [rows for pool in pools_of(table).values() for rows in pool]
    for dtype in sorted({rows.dtype for rows in every}):
        of_format = [rows for rows in every if rows.dtype == dtype]
        chosen = [rows for rows in of_format if rows.key in REFERENCES]
        seen = {rows.key[0] for rows in chosen}
        chosen += [rows for rows in of_format if rows.key in OLDER_REFERENCES and rows.key[0] not in seen]
        if chosen:
            members[dtype] = chosen
    return members


if __name__ == "__main__":
    main()
