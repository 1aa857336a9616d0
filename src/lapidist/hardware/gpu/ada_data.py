"""The measurements behind the Ada study (Liu and Halim, arXiv 2411.16954), read from a folder that the user has.

They come without a licence, so neither they nor anything fitted on them ships; everything is fitted when asked for.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lapidist.hardware.gpu.table_file import read_table_file

RUNS_FILE = "gpperf_cutlass_16128.parquet"
NAIVE_FILE = "gpperf_naive_tile_kernel.csv"

CONFIGURATION = ["M", "N", "K", "transposition", "alpha", "beta"]

_RUN_COLUMNS = {
    "M": "M",
    "N": "N",
    "K": "K",
    "kernel_layout": "transposition",
    "alpha": "alpha",
    "beta": "beta",
    "block_m_arg_ignored": "block_m",
    "block_n_arg_ignored": "block_n",
    "block_k_arg_ignored": "block_k",
    "runtime_ms": "runtime_ms",
    "power_w_after_run": "power_w",
    "energy_j_as_recorded": "energy_j",
    "gflops": "gflops",
    "gpu_util_before_pct": "busy_before_percent",
    "gpu_util_after_pct": "busy_after_percent",
    "uncontended": "uncontended",
    "in_paper_training_pool": "in_pool",
}
_NAIVE_COLUMNS = ["M", "N", "K", "tile", "time_ms", "avg_power_W"]
_WORDS = ("kernel_layout",)
_BUSY_PERCENT = 50
_FEWEST_REPEATS = 10


@dataclass(frozen=True, eq=False)
class AdaData:
    """One RTX 4070 of a shared machine.

    Attributes
    ----------
    runs : 16,128 runs of one CUTLASS SGEMM kernel; ``foreign_job`` is whether the GPU was at least half busy just
        before or just after the run, when this process had nothing running.
    naive : a textbook kernel of square tiles, per shape and tile size: ``time_ms``, ``avg_power_W``.
    """

    runs: pd.DataFrame
    naive: pd.DataFrame

    @property
    def pool(self) -> pd.DataFrame:
        """The runs that had a power reading, which alone the study's model was trained and tested on."""
        return self.runs[self.runs["in_pool"]].reset_index(drop=True)


def read_ada_data(folder: Path) -> AdaData:
    """Read both tables.

    Raises
    ------
    ValueError : a file is absent, unreadable or empty, lacks a column, or has words where numbers belong.
    """
    runs = _read(folder / RUNS_FILE, list(_RUN_COLUMNS))
    runs = runs[list(_RUN_COLUMNS)].rename(columns=_RUN_COLUMNS)
    busy = runs[["busy_before_percent", "busy_after_percent"]].max(axis=1)
    runs["foreign_job"] = busy >= _BUSY_PERCENT
    return AdaData(runs, _read(folder / NAIVE_FILE, _NAIVE_COLUMNS))


def clean_medians(runs: pd.DataFrame) -> pd.DataFrame:
    """Median ``runtime_ms`` of each configuration over its uncontended runs, where there are at least ten.

    Block sizes and layout arguments are no part of a configuration: the profiler ignored them.
    """
    grouped = runs[runs["uncontended"]].groupby(CONFIGURATION, sort=True)["runtime_ms"]
    medians = grouped.agg(runtime_ms="median", repeats="size").reset_index()
    return medians[medians["repeats"] >= _FEWEST_REPEATS].reset_index(drop=True)


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the folder must hold {RUNS_FILE} and {NAIVE_FILE}")
    frame = read_table_file(path)
    absent = [column for column in columns if column not in frame]
    if absent:
        raise ValueError(f"{path}: lacks the column {absent[0]!r}")
    for column in columns:
        if column not in _WORDS and not pd.api.types.is_numeric_dtype(frame[column]):
            raise ValueError(f"{path}: the column {column!r} holds something that is no number")
    if frame.empty:
        raise ValueError(f"{path}: holds no rows")
    return frame
