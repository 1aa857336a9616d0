"""What the measured dispatch table is worth: re-measured, and against fixed choices.

    python -m benchmarks.kernels.dispatch_regret --like llama-3.2-1b --dtype bfloat16 float32

The linear layers of a model are tuned, then measured again. Claims: the table picks an implementation within 2 % of
the fastest for at least 95 % of shapes and row counts, loses at most 5 % anywhere, and over the shapes (geometric mean)
beats both fixed choices, always GEMM at M = 1 and always GEMV at M = 16, the worse of them by at least 1.2x
(FlashDecoding++, arXiv 2311.01282, section 5).

The user's stored table is neither read nor changed.
"""

import argparse
import dataclasses
import math
from typing import Any

from torch import Tensor

from benchmarks.result_file import write_result
from lapidist.kernels.cpu.linear import IMPLEMENTATIONS, pack_weight
from lapidist.kernels.dispatch import DispatchTable, Implementation, WeightShape
from lapidist.kernels.dispatch_regret import picks, regret
from lapidist.kernels.dispatch_search import TOLERANCE, two_inflections
from lapidist.kernels.tune import Measurements, measure, tune
from lapidist.models.config import DTYPES, ModelConfig
from lapidist.workload.linear_shapes import linear_shapes

_FEW, _MANY = 1, 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--like", nargs="+", default=["llama-3.2-1b"], help="public shapes")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"], choices=DTYPES)
    parser.add_argument("--max-rows", type=int, default=64)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for each of the two runs")
    args = parser.parse_args()
    if args.max_rows < _MANY:
        parser.error(f"--max-rows must be at least {_MANY}")

    shapes = [pair for name in args.like for pair in linear_shapes(ModelConfig.of_shape(name)).values()]
    dtypes = [DTYPES[name] for name in args.dtype]
    limits = {"max_rows": args.max_rows, "budget_seconds": args.budget}
    table = tune(IMPLEMENTATIONS, shapes, dtypes, pack=pack_weight, **limits).table
    gemv = IMPLEMENTATIONS[0]
    again = measure([for_any_rows(gemv), *IMPLEMENTATIONS[1:]], shapes, dtypes, pack=pack_weight, **limits)
    result = evaluate(table, again, [each.name for each in IMPLEMENTATIONS])
    result["settings"] = {"like": args.like, "dtype": args.dtype, **limits}
    for key in ("regret", "gains", "claims"):
        print(key, result[key])
    print(f"written to {write_result('dispatch_regret', result)}")


def for_any_rows(gemv: Implementation) -> Implementation:
    """GEMV as the only choice: more rows than it takes go through it in parts."""
    step = gemv.max_rows
    if step is None:
        return gemv

    def run(x: Tensor, weight: Tensor, out: Tensor) -> None:
        for start in range(0, len(x), step):
            gemv.run(x[start : start + step], weight, out[start : start + step])

    return dataclasses.replace(gemv, run=run, max_rows=None)


def evaluate(table: DispatchTable, again: Measurements, order: list[str]) -> dict[str, Any]:
    """Regret, gains over the fixed choices, whether the claims hold, and everything they rest on."""
    gemv, library = order[0], order[-1]
    found = regret(table, again.curves)
    gains = {
        f"over_always_{library}_at_{_FEW}": gain(table, again, library, _FEW),
        f"over_always_{library}_at_{_MANY}": gain(table, again, library, _MANY),
        f"over_always_{gemv}_at_{_FEW}": gain(table, again, gemv, _FEW),
        f"over_always_{gemv}_at_{_MANY}": gain(table, again, gemv, _MANY),
    }
    fixed = (gains[f"over_always_{library}_at_{_FEW}"], gains[f"over_always_{gemv}_at_{_MANY}"])
    claims = {
        "near_fastest_share >= 0.95": found.near_fastest_share >= 0.95,
        "max regret <= 0.05": found.max <= 0.05,
        "faster than either fixed choice": min(fixed) > 1,
        "gain over the worse fixed choice >= 1.2": max(fixed) >= 1.2,
    }
    return {
        "regret": {
            "max": found.max,
            "worst": f"{found.worst[0]}, M = {found.worst[1]}",
            "geomean": found.geomean,
            "fastest_share": found.fastest_share,
            "near_fastest_share": found.near_fastest_share,
            "tolerance": TOLERANCE,
            "points": found.points,
        },
        "gains": gains,
        "claims": claims,
        "met": all(claims.values()),
        "shapes": [describe(table, shape, order, again.curves[shape]) for shape in again.curves],
        "unmeasured": [str(shape) for shape in again.unmeasured],
    }


def gain(table: DispatchTable, again: Measurements, fixed: str, rows: int) -> float:
    """Geometric mean over the shapes of the fixed choice's time over the table's, for so many rows."""
    ratios = [
        times[fixed] / times[picked]
        for _, found, times, picked in picks(table, again.curves)
        if found == rows and fixed in times
    ]
    return math.exp(math.fsum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan


def describe(
    table: DispatchTable, shape: WeightShape, order: list[str], curves: dict[str, dict[int, float]]
) -> dict[str, Any]:
    inflections = table.inflections(shape)
    return {
        "shape": str(shape),
        "inflections": inflections,
        "m1_m2": two_inflections(inflections, order),
        "remeasured_seconds": curves,
    }


if __name__ == "__main__":
    main()
