"""What a dispatch table loses against always taking the fastest."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lapidist.kernels.dispatch import DispatchTable, WeightShape
from lapidist.kernels.dispatch_search import TOLERANCE, Curves


@dataclass(frozen=True)
class Regret:
    """Over all measured shapes and numbers of rows, a share of the fastest time: 0.03 is 3 % slower.

    Attributes
    ----------
    max, geomean : of the time lost.
    fastest_share : how often the pick is the fastest.
    near_fastest_share : how often it is within the tolerance of the fastest.
    points : how many were compared.
    worst : where the most is lost: shape and rows.
    """

    max: float
    geomean: float
    fastest_share: float
    near_fastest_share: float
    points: int
    worst: tuple[WeightShape, int]


def regret(
    table: DispatchTable, curves: Mapping[WeightShape, Curves], tolerance: float = TOLERANCE
) -> Regret:
    """Compare the table's picks with timings, best taken anew and not those that the table was made from.

    Raises
    ------
    ValueError : there are no timings.
    """
    ratios = {
        (shape, rows): times[picked] / min(times.values())
        for shape, rows, times, picked in picks(table, curves)
    }
    if not ratios:
        raise ValueError("there are no timings to compare the table with")
    worst = max(ratios, key=lambda place: ratios[place])
    count = len(ratios)
    return Regret(
        max=ratios[worst] - 1,
        geomean=math.exp(math.fsum(map(math.log, ratios.values())) / count) - 1,
        fastest_share=sum(ratio == 1 for ratio in ratios.values()) / count,
        near_fastest_share=sum(ratio <= 1 + tolerance for ratio in ratios.values()) / count,
        points=count,
        worst=worst,
    )


def picks(
    table: DispatchTable, curves: Mapping[WeightShape, Curves]
) -> Iterator[tuple[WeightShape, int, dict[str, float], str]]:
    """Shape, rows, every implementation's seconds and the table's pick, for each measured number of rows.

    A pick without a time does not run there; the last implementation stands in, as in ``DispatchTable.bind``.
    """
    for shape, by_name in curves.items():
        pick = table.picker(shape.n, shape.k, shape.dtype)
        for rows in sorted({rows for curve in by_name.values() for rows in curve}):
            times = {name: curve[rows] for name, curve in by_name.items() if rows in curve}
            name = pick(rows)
            yield shape, rows, times, name if name in times else list(times)[-1]
