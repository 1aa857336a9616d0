"""Which of several options no other one beats in everything."""

from collections.abc import Sequence


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other point dominates, in their order.

    A point dominates another if it is at most as large in every coordinate and smaller in one; less is better. Of equal
    points all stay.

    >>> pareto_front([(1, 5), (2, 2), (3, 3), (5, 1)])
    [0, 1, 3]
    """
    return [
        index
        for index, point in enumerate(points)
        if not any(_dominates(other, point) for other in points if other is not point)
    ]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
