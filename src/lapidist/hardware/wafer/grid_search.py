"""The fastest grid for a phase: a sweep over the rectangles of a wafer, as the paper's offline tuning does."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import lcm

from lapidist.hardware.wafer.device import Device
from lapidist.hardware.wafer.llm_cost import LLMCost, PhaseCost
from lapidist.hardware.wafer.llm_memory import Phase
from lapidist.hardware.wafer.regions import Grid

Progress = Callable[[int, int], None]

_LONGEST_LOOP = 4
"""Slots of a prefill grid, as multiples of its longer side: lcm(rows, cols) grows without bound for odd rectangles."""


@dataclass(frozen=True)
class GridSearch:
    """Costs of all grids on which the phase runs, fastest first, and why the others do not."""

    phase: Phase
    costs: tuple[PhaseCost, ...]
    refused: int

    @property
    def best(self) -> PhaseCost:
        """The fastest grid of which the wafer holds enough regions, else the fastest.

        Raises
        ------
        ValueError : no grid can hold one layer.
        """
        if not self.costs:
            raise ValueError(
                f"no grid of this wafer can hold one layer in {self.phase}; use fewer tokens or a smaller model"
            )
        return next((cost for cost in self.costs if cost.fits), self.costs[0])


def candidate_grids(device: Device, step: int, squares_only: bool = False) -> Iterator[Grid]:
    """Rectangles whose sides are multiples of ``step`` and fit on the device; squares, or all of them."""
    if step < 1:
        raise ValueError(f"the step between grids must be at least 1, got {step}")
    for rows in range(step, device.rows + 1, step):
        for cols in range(step, device.cols + 1, step):
            if rows == cols or not squares_only:
                yield Grid(rows, cols)


def search_grids(
    llm: LLMCost,
    phase: Phase,
    tokens: int,
    grids: Iterable[Grid],
    progress: Progress | None = None,
) -> GridSearch:
    """Cost the phase on every grid; those on which it does not run are counted, not raised."""
    wanted = [grid for grid in grids if phase == "decode" or _is_compact(grid)]
    costs: list[PhaseCost] = []
    for done, grid in enumerate(wanted):
        if progress is not None:
            progress(done, len(wanted))
        try:
            costs.append(llm.prefill(tokens, grid) if phase == "prefill" else llm.decode(tokens, grid))
        except ValueError:
            continue
    if progress is not None:
        progress(len(wanted), len(wanted))
    return GridSearch(phase, tuple(sorted(costs, key=lambda cost: cost.cycles)), len(wanted) - len(costs))


def _is_compact(grid: Grid) -> bool:
    return lcm(grid.rows, grid.cols) <= _LONGEST_LOOP * max(grid.rows, grid.cols)
