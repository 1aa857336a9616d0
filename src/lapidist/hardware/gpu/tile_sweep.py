"""The tile size of a textbook shared-memory GEMM: measured time and power beside the occupancy that explains them.

The kernel gives each thread one element of a T x T tile of the output and stages two such tiles of the operands in
shared memory: T sets the threads of a block, its shared memory (``2 T^2`` floats) and the arithmetic per loaded word.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from lapidist.hardware.gpu.occupancy import WARP, Occupancy, occupancy

LARGE = 8192  # sides of M and N from which a single un-warmed launch measures the kernel and not the start-up
_SHAPE = ["M", "N", "K"]


@dataclass(frozen=True)
class TileRow:
    """One tile size over the large shapes; ratios are to the reference tile on the same shape.

    Attributes
    ----------
    time_ratio, time_ratio_low, time_ratio_high : mean, smallest and largest over shapes.
    energy_ratio : mean of ``power x time``.
    power_saving : of the reference tile against this one, mean over shapes; negative where this one draws less.
    live_lanes : part of the warps' lanes that have a thread.
    """

    tile: int
    shapes: int
    time_ratio: float
    time_ratio_low: float
    time_ratio_high: float
    energy_ratio: float
    watts: float
    power_saving: float
    occupancy: Occupancy
    live_lanes: float


def tile_sweep(naive: pd.DataFrame, compute_capability: str = "8.9", reference: int = 16) -> list[TileRow]:
    """A row per tile size, over the shapes with M and N of at least ``LARGE`` that were run with every tile size.

    Raises
    ------
    ValueError : no such shape.
    """
    large = naive[(naive["M"] >= LARGE) & (naive["N"] >= LARGE)]
    time = large.pivot_table(index=_SHAPE, columns="tile", values="time_ms").dropna()
    watts = large.pivot_table(index=_SHAPE, columns="tile", values="avg_power_W").loc[time.index]
    if time.empty or reference not in time:
        raise ValueError(
            f"the tile sweep needs shapes of {LARGE} and more that ran with every tile, {reference} among them"
        )
    slower = time.div(time[reference], axis=0)
    energy = slower * watts.div(watts[reference], axis=0)
    saving = 1 - 1 / watts.div(watts[reference], axis=0)
    rows = []
    for tile in map(int, time.columns):
        threads = tile * tile
        rows.append(
            TileRow(
                tile=tile,
                shapes=len(time),
                time_ratio=float(slower[tile].mean()),
                time_ratio_low=float(slower[tile].min()),
                time_ratio_high=float(slower[tile].max()),
                energy_ratio=float(energy[tile].mean()),
                watts=float(watts[tile].mean()),
                power_saving=float(saving[tile].mean()),
                occupancy=occupancy(compute_capability, threads, shared_memory_bytes=2 * 4 * threads),
                live_lanes=threads / (-(-threads // WARP) * WARP),
            )
        )
    return rows


def published_claims(rows: Sequence[TileRow]) -> dict[str, dict[str, Any]]:
    """What the data say to the study's three claims about tile size (Liu and Halim, arXiv 2411.16954)."""
    by_tile = {row.tile: row for row in rows}
    smaller = [row for row in rows if row.tile < 16]
    return {
        "16 x 16 is the best tile": {
            "holds": min(rows, key=lambda row: row.time_ratio).tile == 16
            and min(rows, key=lambda row: row.energy_ratio).tile == 16,
            "time_ratio": {row.tile: row.time_ratio for row in rows},
            "energy_ratio": {row.tile: row.energy_ratio for row in rows},
        },
        "up to 3.2 times faster": {
            "holds": abs(by_tile[8].time_ratio_high - 3.2) < 0.15,
            "largest_from_8_to_16": by_tile[8].time_ratio_high,
            "typical_from_8_to_16": by_tile[8].time_ratio,
        },
        "22 % less power": {
            "holds": any(abs(row.power_saving - 0.22) < 0.01 for row in rows),
            "saving_against": {row.tile: row.power_saving for row in smaller},
            "saving_against_mean_of_smaller": 1
            - by_tile[16].watts / (sum(row.watts for row in smaller) / len(smaller)),
        },
    }


def tile_rows(rows: Sequence[TileRow]) -> list[dict[str, Any]]:
    """Plain dictionaries."""
    return [asdict(row) for row in rows]
