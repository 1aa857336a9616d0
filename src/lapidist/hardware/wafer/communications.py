"""How tiles and sums travel between cores: the communications that mesh algorithms are made of.

All have ``hops`` (links on the critical path), ``stages`` (times that a core's software receives and sends on),
``elements`` (through the busiest core's link), ``routes`` (colours of routers), and run along one axis on a ``line``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lapidist.hardware.wafer.line import Axis, Flows, Line, multicast_flows, ring_flows
from lapidist.hardware.wafer.reduction_tree import Phase
from lapidist.hardware.wafer.ring import Indices, RingKind

Reduction = Literal["sum", "max"]


@dataclass(frozen=True)
class Routes:
    """Colours that a step needs: of the family ``name``, ``at`` each core along the step's line, ``total`` in all.

    Steps that use the same family use the same routes, so they share its colours.
    """

    name: str
    total: int
    at: Indices


class _OnALine:
    """What communications have unless they say otherwise: no software on the way, no buffer of their own."""

    line: Line

    @property
    def axis(self) -> Axis:
        return self.line.axis

    @property
    def stages(self) -> int:
        """Times that a core's software receives and sends on, one after the other."""
        return 0

    @property
    def scratch(self) -> int:
        """Elements of a core's memory that the step needs beside its tiles."""
        return 0


@dataclass(frozen=True)
class Shift(_OnALine):
    """Every slot of a ring sends its tile to the next one over static routes, and receives the one before.

    Attributes
    ----------
    tile : the tensor that moves; ``tile_elements`` in one slot.
    skew : None if all lines turn; otherwise the line across, each of whose slots turns its own number of times
        (``alignment_turns``): in repetition ``t`` only lines with more than ``t`` turns move, the shorter way round.
    """

    tile: str
    tile_elements: int
    line: Line
    ring: RingKind = "interleaved"
    skew: Line | None = None

    @property
    def flows(self) -> Flows:
        return ring_flows(self.ring, self.line.cores, self.line.slots)

    @property
    def hops(self) -> int:
        return self.flows.hops

    @property
    def elements(self) -> int:
        return int(self.flows.sent.max()) * self.tile_elements

    @property
    def router_elements(self) -> Indices:
        """Elements that each router along the line handles; ``[line.cores]``."""
        return self.flows.touching * self.tile_elements

    @property
    def routes(self) -> tuple[Routes, ...]:
        name = f"{self.axis} {self.ring} ring{_grouped(self.line)}"
        forward = _routes(name, self.flows.touching)
        if self.skew is None:
            return (forward,)
        backward = ring_flows(self.ring, self.line.cores, self.line.slots, -1).touching
        return (forward, _routes(f"{name} backward", backward))

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.tile,)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.tile,)

    @property
    def scratch(self) -> int:
        """The second buffer, into which the next tiles arrive while the old ones are still read."""
        return self.line.slots_per_core * self.tile_elements


@dataclass(frozen=True)
class Reduce(_OnALine):
    """One phase of a tree: cores add vectors of ``elements`` along chains until the phase's roots hold sums."""

    tile: str
    elements: int
    line: Line
    phase: Phase
    level: int = 0
    operation: Reduction = "sum"

    @property
    def hops(self) -> int:
        return self.phase.hops

    @property
    def stages(self) -> int:
        return len(self.phase.stages)

    @property
    def router_elements(self) -> Indices:
        return self.phase.flows.touching * self.elements

    @property
    def routes(self) -> tuple[Routes, ...]:
        """Up and down the line, in two colours each by parity: a core receives in one and sends in the other."""
        up, down = (flows.touching for flows in self.phase.flows.by_direction)
        return _chains(self.line, self.level, up, down)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.tile,)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.tile,)

    @property
    def scratch(self) -> int:
        """None: a stage reads the fabric, adds and writes the fabric, element by element."""
        return 0


@dataclass(frozen=True)
class ReduceToRing(_OnALine):
    """Sums partial results along ``line`` to a root that moves: MeshGEMM-T's ReduceAdd (dist-GEMM-T).

    In repetition ``t`` row ``p`` holds the block of the shifted operand that began ``t`` ring positions before
    ``p``. The sum of its products goes to the slot of that number in ``out``: it arrives in natural order.
    """

    partial: str
    out: str
    elements: int
    line: Line
    ring: Line
    ring_kind: RingKind = "interleaved"

    @property
    def hops(self) -> int:
        """One: the chains of successive repetitions follow one another as a wavefront."""
        return min(1, self.line.cores - 1)

    @property
    def stages(self) -> int:
        return self.hops

    @property
    def fill(self) -> int:
        """Hops, each with a stage, until the first sum has come through the longest chain; paid once a loop."""
        return max(0, self.line.cores - 2)

    @property
    def router_elements(self) -> Indices:
        return np.full(self.line.cores, 2 * self.elements) if self.line.cores > 1 else np.zeros(1, np.int64)

    @property
    def routes(self) -> tuple[Routes, ...]:
        neighbours = _neighbours(self.line)
        return _chains(self.line, 0, neighbours, neighbours)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.partial,)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)


@dataclass(frozen=True)
class Broadcast(_OnALine):
    """One core's tile to all cores of its line, by multicast in the routers.

    ``root`` is a core of the line; ``"turn"`` means slot ``t`` in repetition ``t``, with one route for each root
    as SUMMA needs them (or one that is re-programmed between repetitions, ``reconfigured``).
    """

    tile: str
    out: str
    elements: int
    line: Line
    root: int | Literal["turn"]
    reconfigured: bool = False

    @property
    def hops(self) -> int:
        """To the farther end; with a moving root, of the worst repetition."""
        return self.line.cores - 1 if self.root == "turn" else max(self.root, self.line.cores - 1 - self.root)

    @property
    def router_elements(self) -> Indices:
        return np.full(self.line.cores, self.elements if self.line.cores > 1 else 0)

    @property
    def routes(self) -> tuple[Routes, ...]:
        cores = self.line.cores
        at = np.full(cores, 1 if cores > 1 else 0)
        if self.root == "turn":
            return (
                _routes(
                    f"{self.axis} broadcast{_grouped(self.line)}", at if self.reconfigured else at * cores
                ),
            )
        at[self.root] = len(multicast_flows(cores, self.root).target)
        return (_routes(f"{self.axis} broadcast from {self.root}{_grouped(self.line)}", at),)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.tile,)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)


@dataclass(frozen=True)
class AllGather(_OnALine):
    """Every core's tiles to all cores of its line, laid side by side along dimension ``along`` of a tile.

    Each core has a route to all others: as many colours as cores, or relays through their software.
    """

    tile: str
    out: str
    tile_elements: int
    line: Line
    along: int

    @property
    def hops(self) -> int:
        return self.line.cores - 1

    @property
    def stages(self) -> int:
        return self.line.cores - 1

    @property
    def elements(self) -> int:
        """What a core receives; at the end of the line it all comes over one link."""
        return (self.line.cores - 1) * self.line.slots_per_core * self.tile_elements

    @property
    def router_elements(self) -> Indices:
        tiles = self.line.slots if self.line.cores > 1 else 0
        return np.full(self.line.cores, tiles * self.tile_elements)

    @property
    def routes(self) -> tuple[Routes, ...]:
        cores = self.line.cores
        return (
            _routes(
                f"{self.axis} all-gather{_grouped(self.line)}", np.full(cores, cores if cores > 1 else 0)
            ),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.tile,)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)


@dataclass(frozen=True)
class RingExchange(_OnALine):
    """One step of the ring all-reduce: each core sends one chunk of a vector to the next core of the ring.

    In repetition ``t`` ring position ``p`` sends chunk ``p - t`` and the receiver adds it (``reduce``), or it sends
    chunk ``p + 1 - t`` and the receiver keeps it (``copy``); chunks modulo the number of cores.
    """

    tile: str
    chunk_elements: int
    line: Line
    mode: Literal["reduce", "copy"]
    ring: RingKind = "interleaved"

    @property
    def flows(self) -> Flows:
        return ring_flows(self.ring, self.line.cores, self.line.cores)

    @property
    def hops(self) -> int:
        return self.flows.hops

    @property
    def stages(self) -> int:
        return 1

    @property
    def elements(self) -> int:
        return int(self.flows.sent.max()) * self.chunk_elements

    @property
    def router_elements(self) -> Indices:
        return self.flows.touching * self.chunk_elements

    @property
    def routes(self) -> tuple[Routes, ...]:
        return (_routes(f"{self.axis} {self.ring} ring{_grouped(self.line)}", self.flows.touching),)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.tile,)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.tile,)

    @property
    def scratch(self) -> int:
        return self.chunk_elements


@dataclass(frozen=True)
class Wave(_OnALine):
    """Keeps a KV cache even over the rows: where neighbours hold equally many, each passes its oldest entry up.

    ``occupancy`` says how many entries each core holds. Below the last row that holds more than the bottom row, every
    row but the topmost gives its oldest entry to the row above, all at once, so the bottom row has room for the next
    token and the order from the top row down stays the order in time (WaferLLM section 4.5). Each sequence of a batch
    has a cache of its own; those without a new token, as ``arriving`` says if it is named, do not move.
    """

    tiles: tuple[str, ...]
    occupancy: str
    elements: int
    line: Line
    arriving: str = ""

    @property
    def hops(self) -> int:
        return min(1, self.line.cores - 1)

    @property
    def stages(self) -> int:
        return self.hops

    @property
    def router_elements(self) -> Indices:
        """When all rows take part, which is the most that can move."""
        return _neighbours(self.line) * self.elements

    @property
    def routes(self) -> tuple[Routes, ...]:
        """Up from row to row: the colours in which the first phase of a reduction goes up."""
        return _chains(self.line, 0, _neighbours(self.line), None)

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.tiles, self.occupancy, *([self.arriving] if self.arriving else []))

    @property
    def writes(self) -> tuple[str, ...]:
        return (*self.tiles, self.occupancy)


Communication = Shift | Reduce | ReduceToRing | Broadcast | AllGather | RingExchange | Wave
COMMUNICATIONS = (Shift, Reduce, ReduceToRing, Broadcast, AllGather, RingExchange, Wave)


def _grouped(line: Line) -> str:
    return f" in {line.groups} groups" if line.groups > 1 else ""


def _neighbours(line: Line) -> Indices:
    """Links of each core to its neighbours on the line; ``[line.cores]``."""
    core = np.arange(line.cores)
    return (core > 0).astype(np.int64) + (core < line.cores - 1)


def _chains(line: Line, level: int, up: Indices, down: Indices | None) -> tuple[Routes, ...]:
    """Colours of chains towards the first core of a line and away from it, by the parity of the sender."""
    ways = (("up", up),) if down is None else (("up", up), ("down", down))
    return tuple(Routes(f"{line.axis} reduction {level} {way}{_grouped(line)}", 2, at) for way, at in ways)


def _routes(name: str, at: Indices) -> Routes:
    return Routes(name, int(at.max()), at)
