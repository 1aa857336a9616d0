"""From timings to inflection points: who is fastest for how many rows.

FlashDecoding++ (arXiv 2311.01282, section 5) looks for the first M at which B beats A, and from there on for the first
at which C beats B. That presumes an order of winners and timings without noise; here any order is found, and a
difference within the noise is no reason to switch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lapidist.kernels.dispatch import Inflections, without_repeats

Curves = Mapping[str, Mapping[int, float]]
"""Seconds by implementation and number of rows. An implementation may lack rows: it does not run there."""

Measure = Callable[[int], Mapping[str, float] | None]
"""Seconds of every implementation for a number of rows; None when there is no time left to measure."""

TOLERANCE = 0.02


def search(curves: Curves, measure: Measure | None = None, tolerance: float = TOLERANCE) -> Inflections:
    """The choice with the fewest switches that loses at most ``tolerance`` at every measured number of rows.

    Of several such choices it is the one that loses least (the geometric mean of its times is smallest), and
    of those the one that switches latest. With a tolerance of 0 and no ties that is the fastest everywhere.

    Parameters
    ----------
    curves : measured numbers of rows; not changed.
    measure : bisects between two measured numbers whose choices differ until they are neighbours, so a third
        implementation that wins in between is found too. Without it, or once it returns None, the switch is put where
        straight lines through the two would cross.
    tolerance : share of the fastest time.

    Raises
    ------
    ValueError : there are no timings, or one is not a positive number.

    Examples
    --------
    >>> search({"gemv": {1: 1.0, 4: 4.0}, "flat": {1: 2.0, 4: 2.0}})
    ((1, 'gemv'), (3, 'flat'))
    """
    known = {name: dict(curve) for name, curve in curves.items()}
    _check(known)
    chosen = fewest_switches(known, tolerance)
    while measure is not None and (middles := _middles(chosen)):
        for rows in middles:
            found = measure(rows)
            if not found:
                measure = None
                break
            for name, seconds in found.items():
                known.setdefault(name, {})[rows] = seconds
        _check(known)
        chosen = fewest_switches(known, tolerance)
    measured = sorted(chosen)
    pieces = [(1, chosen[measured[0]])]
    for before, after in pairwise(measured):
        if chosen[before] != chosen[after]:
            start = _crossing(known[chosen[before]], known[chosen[after]], before, after)
            pieces.append((start, chosen[after]))
    return tuple(pieces)


@dataclass(frozen=True, order=True)
class _Path:
    """Choices up to some number of rows; the smaller the better. Its cost adds up, so the best path is
    the extension of a best path and a dynamic programme over the last choice finds it."""

    switches: int = 0
    loss: float = 0.0
    earliness: int = 0
    choices: tuple[int, ...] = ()

    def extended(self, choice: int, rows: int, loss: float) -> "_Path":
        switched = bool(self.choices) and self.choices[-1] != choice
        return _Path(
            self.switches + switched,
            self.loss + loss,
            self.earliness - rows * switched,
            (*self.choices, choice),
        )


def fewest_switches(curves: Curves, tolerance: float) -> dict[int, str]:
    """The chosen name for each measured number of rows; see ``search``."""
    names = list(curves)
    all_rows = sorted({rows for curve in curves.values() for rows in curve})
    paths = [_Path()]
    for rows in all_rows:
        times = {index: curves[name][rows] for index, name in enumerate(names) if rows in curves[name]}
        best = min(times.values())
        paths = [
            min(path.extended(index, rows, math.log(seconds / best)) for path in paths)
            for index, seconds in times.items()
            if seconds <= best * (1 + tolerance)
        ]
    return {rows: names[index] for rows, index in zip(all_rows, min(paths).choices, strict=True)}


def two_inflections(inflections: Inflections, order: Sequence[str]) -> tuple[int | None, int | None] | None:
    """The paper's M1 and M2: from where the second and the third of ``order`` are used.

    One that is passed over shares the next one's point; None stands for never. The whole is None when the winners
    do not follow ``order``.
    """
    ranks = [order.index(name) if name in order else -1 for _, name in inflections]
    if -1 in ranks or ranks != sorted(ranks):
        return None
    firsts = [
        next((start for (start, _), rank in zip(inflections, ranks, strict=True) if rank >= least), None)
        for least in (1, 2)
    ]
    return firsts[0], firsts[1]


def extended(inflections: Inflections, last_rows: int, beyond: Inflections) -> Inflections:
    """``inflections`` up to ``last_rows``, ``beyond`` from there on: nothing measured is extrapolated."""
    current = [name for start, name in beyond if start <= last_rows + 1][-1]
    later = [(start, name) for start, name in beyond if start > last_rows + 1]
    return without_repeats([*inflections, (last_rows + 1, current), *later])


def _check(curves: Curves) -> None:
    times = [seconds for curve in curves.values() for seconds in curve.values()]
    if not times:
        raise ValueError("there are no timings to choose from")
    if not all(0 < seconds < math.inf for seconds in times):
        raise ValueError("a timing must be a positive number of seconds")


def _middles(chosen: Mapping[int, str]) -> list[int]:
    """Half way between neighbouring measurements whose choices differ."""
    rows = sorted(chosen)
    return [(a + b) // 2 for a, b in pairwise(rows) if chosen[a] != chosen[b] and b - a > 1]


def _crossing(old: Mapping[int, float], new: Mapping[int, float], before: int, after: int) -> int:
    """The first number of rows in ``(before, after]`` for which ``new`` is faster by linear interpolation."""
    if before not in new:
        return after
    if after not in old:  # it may not run any further
        return before + 1
    gain_before, gain_after = old[before] - new[before], old[after] - new[after]
    if gain_before >= 0:
        return before + 1
    if gain_after <= 0:
        return after
    position = before + (after - before) * gain_before / (gain_before - gain_after)
    return min(after, math.floor(position) + 1)
