"""Measures the implementations of linear layers on this machine and makes a dispatch table of it."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lapidist.kernels.dispatch import (
    DEFAULT_INFLECTIONS,
    DispatchTable,
    Implementation,
    Inflections,
    WeightShape,
)
from lapidist.kernels.dispatch_search import extended, search
from lapidist.kernels.dispatch_timing import WeightTimer

Progress = Callable[[WeightShape, int, int], None]
"""Is told the shape that is being measured and how many of how many measurements are done, refinements aside."""

# Of a shape's time; the rest is for finding the inflection points between the numbers of the grid.
_GRID_SHARE = 0.5
_MAX_CONFIRMATIONS = 3


@dataclass(frozen=True)
class Measurements:
    """Seconds by shape, implementation and number of rows.

    Attributes
    ----------
    unmeasured : shapes for which no time was left.
    """

    curves: dict[WeightShape, dict[str, dict[int, float]]] = field(default_factory=dict)
    unmeasured: tuple[WeightShape, ...] = ()


@dataclass(frozen=True)
class Tuning:
    """A table and the measurements it rests on."""

    table: DispatchTable
    measurements: Measurements


def tune(
    implementations: Sequence[Implementation],
    shapes: Iterable[tuple[int, int]],
    dtypes: Iterable[torch.dtype],
    *,
    max_rows: int = 64,
    budget_seconds: float = 30.0,
    progress: Progress | None = None,
    beyond: Inflections = DEFAULT_INFLECTIONS,
    clock: Callable[[], float] = time.perf_counter,
    pack: Callable[[Tensor], Tensor] = torch.clone,
) -> Tuning:
    """Measure, on the CPU, and find the inflection points.

    Small weights come first; each gets an equal share of the time that is left. A grid of row counts is measured,
    then the points where the fastest changes are bisected, then measured again until they stay.

    Parameters
    ----------
    implementations : the last of them takes any number of rows.
    shapes : ``(n, k)`` of the weights.
    max_rows : measured from 1 row to so many; from there on ``beyond`` holds.
    pack : from a plain weight ``[n, k]`` to the layout that the implementations read.
    budget_seconds : refining stops when it is spent. One measurement is never cut short, so large weights
        can exceed it by some seconds.

    Raises
    ------
    ValueError : the budget or ``max_rows`` is not positive, there are no shapes, or memory is short.
    """
    plan = _Plan(implementations, shapes, dtypes, max_rows, budget_seconds, progress, clock, pack)
    entries, curves = {}, {}
    for session in plan.sessions():
        found = session.inflections()
        entries[session.shape] = extended(found, max(session.measured_rows()), beyond)
        curves[session.shape] = session.curves
    return Tuning(DispatchTable(entries, beyond), plan.measurements(curves))


def measure(
    implementations: Sequence[Implementation],
    shapes: Iterable[tuple[int, int]],
    dtypes: Iterable[torch.dtype],
    *,
    max_rows: int = 64,
    budget_seconds: float = 30.0,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
    pack: Callable[[Tensor], Tensor] = torch.clone,
) -> Measurements:
    """Measure the grid only, to compare a table with; parameters and errors as in ``tune``."""
    plan = _Plan(implementations, shapes, dtypes, max_rows, budget_seconds, progress, clock, pack)
    return plan.measurements({session.shape: session.curves for session in plan.sessions()})


def row_grid(max_rows: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, 24, ... and ``max_rows``.

    >>> row_grid(20)
    [1, 2, 3, 4, 6, 8, 12, 16, 20]
    """
    powers = [1 << bit for bit in range(max_rows.bit_length())]
    halves = [3 * power // 2 for power in powers if power > 1]
    return sorted({rows for rows in (*powers, *halves, max_rows) if rows <= max_rows})


class _Plan:
    """What is to be measured, and until when."""

    def __init__(
        self,
        implementations: Sequence[Implementation],
        shapes: Iterable[tuple[int, int]],
        dtypes: Iterable[torch.dtype],
        max_rows: int,
        budget_seconds: float,
        progress: Progress | None,
        clock: Callable[[], float],
        pack: Callable[[Tensor], Tensor],
    ) -> None:
        if not budget_seconds > 0:
            raise ValueError(f"the budget must be more than 0 seconds, got {budget_seconds:g}")
        if max_rows < 1:
            raise ValueError(f"max_rows must be at least 1, got {max_rows}")
        pairs = list(dict.fromkeys(shapes))
        self._weights = [WeightShape(n, k, dtype) for dtype in dict.fromkeys(dtypes) for n, k in pairs]
        if not self._weights:
            raise ValueError("there are no weight shapes to measure")
        self._weights.sort(key=lambda weight: weight.weight_bytes)
        self._implementations, self._progress, self._clock, self._pack = (
            implementations,
            progress,
            clock,
            pack,
        )
        self._grid = row_grid(max_rows)
        self._deadline = clock() + budget_seconds

    def sessions(self) -> Iterator["_Session"]:
        """A session with its grid measured, for every weight that is reached; the first one always is."""
        with torch.inference_mode():
            for index, weight in enumerate(self._weights):
                left = self._deadline - self._clock()
                if index and left <= 0:
                    return
                share = max(0.0, left) / (len(self._weights) - index)
                timer = WeightTimer(self._implementations, weight, self._grid[-1], self._clock, self._pack)
                session = _Session(weight, timer, self._clock() + share, self._clock)
                for done in session.measure_grid(self._grid, _GRID_SHARE * share):
                    if self._progress is not None:
                        total = len(self._weights) * len(self._grid)
                        self._progress(weight, index * len(self._grid) + done, total)
                yield session

    def measurements(self, curves: dict[WeightShape, dict[str, dict[int, float]]]) -> Measurements:
        by_rows = {
            weight: {name: dict(sorted(curve.items())) for name, curve in by_name.items()}
            for weight, by_name in curves.items()
        }
        return Measurements(by_rows, tuple(weight for weight in self._weights if weight not in curves))


class _Session:
    """The measurements of one weight, until its share of the time is spent."""

    def __init__(
        self, shape: WeightShape, timer: WeightTimer, deadline: float, clock: Callable[[], float]
    ) -> None:
        self.shape = shape
        self.curves: dict[str, dict[int, float]] = {}
        self._times: dict[tuple[str, int], list[float]] = {}
        self._timer, self._deadline, self._clock = timer, deadline, clock
        self._point_seconds = 0.0

    def measured_rows(self) -> set[int]:
        return {rows for curve in self.curves.values() for rows in curve}

    def measure_grid(self, grid: list[int], seconds: float) -> Iterator[int]:
        """Measure the grid, from its ends to its middles; yields how many are done.

        When time is up the rest is left out. The two ends are always measured.
        """
        self._point_seconds = seconds / len(grid)
        for done, rows in enumerate(_ends_first(grid), 1):
            if done > 2 and self._clock() >= self._deadline:
                break
            self._add(rows)
            yield done

    def inflections(self) -> Inflections:
        """Search with bisection, then measure both sides of every inflection point again until none moves."""
        found = search(self.curves, self._refine)
        for _ in range(_MAX_CONFIRMATIONS):
            sides = {rows for start, _ in found[1:] for rows in (start - 1, start)}
            for rows in sorted(sides):
                if self._clock() < self._deadline:
                    self._add(rows)
            before, found = found, search(self.curves, self._refine)
            if found == before or self._clock() >= self._deadline:
                break
        return found

    def _refine(self, rows: int) -> dict[str, float] | None:
        return self._add(rows) if self._clock() < self._deadline else None

    def _add(self, rows: int) -> dict[str, float]:
        """Measure and keep the lower quartile of this and earlier times. All implementations have theirs from the same
        moments; the best time would be that of whoever ran in the memory's fastest moment, and the median that of a
        busy machine, if others are at work half of the time."""
        found = {}
        for name, times in self._timer.measure(rows, self._point_seconds).items():
            all_times = self._times.setdefault((name, rows), [])
            all_times += times
            self.curves.setdefault(name, {})[rows] = found[name] = float(np.quantile(all_times, 0.25))
        return found


def _ends_first(grid: list[int]) -> Iterator[int]:
    """The ends, then the middle, then the middles of the halves: wherever it is cut, the grid is covered."""
    yield from dict.fromkeys((grid[0], grid[-1]))
    spans = [(0, len(grid) - 1)]
    for first, last in spans:  # grows while it is read
        middle = (first + last) // 2
        if first < middle:
            yield grid[middle]
            spans += [(first, middle), (middle, last)]
