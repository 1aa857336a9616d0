"""What the measured dispatch table is worth: re-measured, and against fixed choices.

    python -m benchmarks.kernels.dispatch_regret --like llama-3.2-1b --dtype bfloat16 float32

The linear layers of a model are tuned, then measured again. Claims: the table picks an implementation within 2 % of
the fastest for at least 95 % of shapes and row counts, loses at most 5 % anywhere, and over the shapes (geometric mean)
beats both fixed choices, always GEMM at M = 1 and always GEMV at M = 16, the worse of them by at least 1.2x
(FlashDecoding++, arXiv 2311.01282, section 5).

Where GEMM runs GEMV's loops (up to 16 rows) the table does not choose between them, but both are measured again: how
far one's times are from the other's is what the measurement cannot tell apart.

The user's stored table is neither read nor changed.
"""

import argparse
import dataclasses
import math
import statistics
from collections.abc import Sequence
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
    gemv, *others = IMPLEMENTATIONS
    everywhere = [for_any_rows(gemv), *(dataclasses.replace(each, min_rows=1) for each in others)]
    again = measure(everywhere, shapes, dtypes, pack=pack_weight, **limits)
    result = evaluate(table, again, IMPLEMENTATIONS)
    result["settings"] = {"like": args.like, "dtype": args.dtype, **limits}
    for key in ("noise", "regret", "gains", "claims"):
        print(key, result[key])
    print(f"written to {write_result('dispatch_regret', result)}")


def for_any_rows(gemv: Implementation) -> Implementation:
    """GEMV as the only choice: more rows than it takes go through it in parts."""
    step = gemv.max_rows
    if step is None:
        return gemv

    def run(x: Tensor, weight: Tensor, out: Tensor) -> None:
        if len(x) <= step:
            gemv.run(x, weight, out)  # as it is called elsewhere: a slice takes time
            return
        for start in range(0, len(x), step):
            gemv.run(x[start : start + step], weight, out[start : start + step])

    return dataclasses.replace(gemv, run=run, max_rows=None)


def choices(
    curves: dict[WeightShape, dict[str, dict[int, float]]], implementations: Sequence[Implementation]
) -> dict[WeightShape, dict[str, dict[int, float]]]:
    """The timings between which a table chooses."""
    return {
        shape: {
            each.name: {
                rows: seconds
                for rows, seconds in by_name[each.name].items()
                if each.competes(shape.dtype, rows)
            }
            for each in implementations
        }
        for shape, by_name in curves.items()
    }


def noise(again: Measurements, one: str, other: str, max_rows: int) -> dict[str, float]:
    """How far the times of two names for the same code are apart, as shares of the shorter one."""
    apart = [
        abs(math.log(curves[one][rows] / curves[other][rows]))
        for curves in again.curves.values()
        for rows in curves[one]
        if rows <= max_rows
    ]
    return {
        "median": math.expm1(statistics.median(apart)),
        "max": math.expm1(max(apart)),
        "share_within_tolerance": sum(each <= math.log1p(TOLERANCE) for each in apart) / len(apart),
        "points": len(apart),
    }


def evaluate(
    table: DispatchTable, again: Measurements, implementations: Sequence[Implementation]
) -> dict[str, Any]:
    """Regret, gains over the fixed choices, whether the claims hold, and everything they rest on."""
    order = [each.name for each in implementations]
    gemv, library = order[0], order[-1]
    found = regret(table, choices(again.curves, implementations))
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
        "noise": noise(again, gemv, library, implementations[-1].min_rows - 1),
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
