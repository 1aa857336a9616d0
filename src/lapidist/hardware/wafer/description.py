"""What a mesh algorithm does, as data: the one description that is simulated, run on ranks and costed.

A :class:`Description` is a program for a mesh in which every core does the same. It is small whatever the mesh
(loops are :class:`Repeat`), so describing an algorithm for 720 x 720 cores takes microseconds.

Who reads it:

* ``simulator`` runs it on NumPy arrays that hold every core's tile, ``distributed`` with one rank a core. Both
  look only at what the steps say, so they move the same bytes.
* A cost model iterates ``description.walk()``: pairs ``(step, times)`` in which loops are multiplied out. A ``step``
  is a :class:`Multiply` or :class:`Pointwise` (work of every core on its own), a communication, or a
  :class:`Together` of steps that overlap (compute-shift). Communications have ``hops`` (links on the critical path),
  ``stages`` (times that a core's software receives and sends on: each costs beta), ``elements`` (through the busiest
  core's link, to be divided by the elements in a 32-bit wavelet), ``axis`` and ``line``. ``Multiply`` has ``m``, ``k``,
  ``n``, ``products`` (how many such products a core computes). Nothing here knows cycles.
* ``description.summary()`` has the totals a user asks for; ``Mesh.admit(description)`` checks memory and colours.

Elements, not bytes, are the unit: the width of an element is ``Description.element_bytes``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from lapidist.hardware.wafer.line import Axis, Flows, Line, multicast_flows, ring_flows
from lapidist.hardware.wafer.reduction_tree import Phase
from lapidist.hardware.wafer.ring import Indices, RingKind

Role = Literal["input", "output", "work", "resident"]
Reduction = Literal["sum", "max"]


@dataclass(frozen=True)
class Tile:
    """What each core holds of one tensor.

    ``input`` lives from the start to its last use, ``output`` from its first write to the end, ``work`` from first
    write to last use, ``resident`` always.
    """

    name: str
    elements: int
    role: Role = "work"


@dataclass(frozen=True)
class Multiply:
    """``out += a @ b``: each core multiplies ``products`` pairs of ``[m, k]`` and ``[k, n]`` tiles.

    With ``transpose_b``, ``b`` lies as ``[n, k]``. Without ``accumulate`` the old ``out`` is forgotten. If ``across``
    is given, ``a`` lies in all slots of that line along x, ``b`` and ``out`` in its used ones.
    """

    a: str
    b: str
    out: str
    m: int
    k: int
    n: int
    products: int = 1
    transpose_b: bool = False
    accumulate: bool = True
    across: Line | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.a, self.b, self.out) if self.accumulate else (self.a, self.b)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)

    @property
    def scratch(self) -> int:
        return 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one core."""
        return self.products * self.m * self.k * self.n


@dataclass(frozen=True)
class Pointwise:
    """Work on a core's own tiles that is no matrix product.

    Attributes
    ----------
    operation : its kind, by which it is costed: ``add``, ``rope``, ``softmax``, ...
    elements : that a core computes.
    function : what exactly, for the simulator; the operation if empty.
    """

    operation: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    elements: int
    function: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        return self.inputs

    @property
    def writes(self) -> tuple[str, ...]:
        return self.outputs

    @property
    def scratch(self) -> int:
        return 0


@dataclass(frozen=True)
class Routes:
    """Colours that a step needs: of the family ``name``, ``at`` each core along the step's line, ``total`` in all.

    Steps that use the same family use the same routes, so they share its colours.
    """

    name: str
    total: int
    at: Indices


@dataclass(frozen=True)
class Shift:
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
    def axis(self) -> Axis:
        return self.line.axis

    @property
    def flows(self) -> Flows:
        return ring_flows(self.ring, self.line.cores, self.line.slots)

    @property
    def hops(self) -> int:
        return self.flows.hops

    @property
    def stages(self) -> int:
        return 0

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
class Reduce:
    """One phase of a tree: cores add vectors of ``elements`` along chains until the phase's roots hold sums."""

    tile: str
    elements: int
    line: Line
    phase: Phase
    level: int = 0
    operation: Reduction = "sum"

    @property
    def axis(self) -> Axis:
        return self.line.axis

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
        name = f"{self.axis} reduction {self.level}{_grouped(self.line)}"
        return (Routes(name, 4, self.phase.flows.touching),)

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
class ReduceToRing:
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
    def axis(self) -> Axis:
        return self.line.axis

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
        at = np.full(self.line.cores, 4)
        at[[0, -1]] = 2
        name = f"{self.axis} reduction 0{_grouped(self.line)}"
        return (Routes(name, 4, at if self.line.cores > 1 else 0 * at),)

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.partial,)

    @property
    def writes(self) -> tuple[str, ...]:
        return (self.out,)

    @property
    def scratch(self) -> int:
        return 0


@dataclass(frozen=True)
class Broadcast:
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
    def axis(self) -> Axis:
        return self.line.axis

    @property
    def hops(self) -> int:
        """To the farther end; with a moving root, of the worst repetition."""
        return self.line.cores - 1 if self.root == "turn" else max(self.root, self.line.cores - 1 - self.root)

    @property
    def stages(self) -> int:
        return 0

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

    @property
    def scratch(self) -> int:
        return 0


@dataclass(frozen=True)
class AllGather:
    """Every core's tiles to all cores of its line, laid side by side along dimension ``along`` of a tile.

    Each core has a route to all others: as many colours as cores, or relays through their software.
    """

    tile: str
    out: str
    tile_elements: int
    line: Line
    along: int

    @property
    def axis(self) -> Axis:
        return self.line.axis

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

    @property
    def scratch(self) -> int:
        return 0


@dataclass(frozen=True)
class RingExchange:
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
    def axis(self) -> Axis:
        return self.line.axis

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
class Wave:
    """Keeps a KV cache even over the rows: where neighbours hold equally many, each passes its oldest entry up.

    ``occupancy`` says how many entries each core holds. Below the last row that holds more than the bottom row, every
    row but the topmost gives its oldest entry to the row above, all at once, so the bottom row has room for the next
    token and the order from the top row down stays the order in time (WaferLLM section 4.5).
    """

    tiles: tuple[str, ...]
    occupancy: str
    elements: int
    line: Line

    @property
    def axis(self) -> Axis:
        return self.line.axis

    @property
    def hops(self) -> int:
        return min(1, self.line.cores - 1)

    @property
    def stages(self) -> int:
        return self.hops

    @property
    def router_elements(self) -> Indices:
        """When all rows take part, which is the most that can move."""
        rows = np.arange(self.line.cores)
        return ((rows > 0).astype(np.int64) + (rows < self.line.cores - 1)) * self.elements

    @property
    def routes(self) -> tuple[Routes, ...]:
        """Up only, in two colours by parity."""
        rows = np.arange(self.line.cores)
        at = (rows > 0).astype(np.int64) + (rows < self.line.cores - 1)
        return (_routes(f"{self.axis} wave{_grouped(self.line)}", at),)

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.tiles, self.occupancy)

    @property
    def writes(self) -> tuple[str, ...]:
        return (*self.tiles, self.occupancy)

    @property
    def scratch(self) -> int:
        return 0


@dataclass(frozen=True)
class Reconfigure:
    """Routers are programmed anew: the routes of the steps before make room for those of the steps behind."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    scratch: int = 0


Communication = Shift | Reduce | ReduceToRing | Broadcast | AllGather | RingExchange | Wave
Leaf = Multiply | Pointwise | Communication
_COMMUNICATIONS = (Shift, Reduce, ReduceToRing, Broadcast, AllGather, RingExchange, Wave)


@dataclass(frozen=True)
class Together:
    """Steps that start at the same time: transfers go on behind the work on the tiles that are already there."""

    steps: tuple[Leaf, ...]

    @property
    def communications(self) -> tuple[Communication, ...]:
        return tuple(step for step in self.steps if isinstance(step, _COMMUNICATIONS))

    @property
    def hops(self) -> int:
        return max((step.hops for step in self.communications), default=0)

    @property
    def stages(self) -> int:
        return max((step.stages for step in self.communications), default=0)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for step in self.steps for name in step.reads)

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(name for step in self.steps for name in step.writes)

    @property
    def scratch(self) -> int:
        return sum(step.scratch for step in self.steps)


@dataclass(frozen=True)
class Repeat:
    """``body`` ``count`` times; steps in it know the repetition ``t``, from 0."""

    count: int
    body: tuple[Leaf | Together, ...]

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for step in self.body for name in step.reads)

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(name for step in self.body for name in step.writes)

    @property
    def scratch(self) -> int:
        return max((step.scratch for step in self.body), default=0) if self.count else 0


Step = Leaf | Together | Repeat | Reconfigure


@dataclass(frozen=True)
class Summary:
    """Totals of a description.

    Attributes
    ----------
    paths_per_core : routes (colours) that the busiest core's router holds; ``colours`` all that have a number;
        both of the fullest configuration, if routers are programmed anew ``reconfigurations`` times.
    critical_hops : links crossed one after the other; ``hops_per_step`` those of the longest single step.
    stages : times that software of a core receives and sends on, one after the other.
    shifts : ring turns, one after the other.
    peak_elements, peak_bytes : memory of one core when it is fullest.
    """

    paths_per_core: int
    colours: int
    critical_hops: int
    hops_per_step: int
    stages: int
    shifts: int
    peak_elements: int
    peak_bytes: int
    reconfigurations: int = 0


@dataclass(frozen=True)
class Description:
    """An algorithm on a mesh of ``rows`` x ``cols`` cores, for one shape of problem.

    Attributes
    ----------
    tiles : what a core holds, by name.
    program : the steps, in order.
    element_bytes : 2 for fp16, 4 for fp32.
    """

    name: str
    rows: int
    cols: int
    tiles: Mapping[str, Tile]
    program: tuple[Step, ...]
    element_bytes: int = 2
    parameters: Mapping[str, int] = field(default_factory=dict)

    def walk(self) -> Iterator[tuple[Leaf | Together, int]]:
        """Steps in order with how often each runs; bodies of loops once, with the loop's count."""
        return _walk(self.program)

    def communications(self) -> Iterator[tuple[Communication, int]]:
        """Communications in order with how often each runs, also those inside :class:`Together`."""
        return _communications(self.program)

    @cached_property
    def configurations(self) -> tuple[Mapping[tuple[Axis, str], Routes], ...]:
        """Families of routes by axis and name, along the whole axis, that routers hold at the same time."""
        switches = [i for i, step in enumerate(self.program) if isinstance(step, Reconfigure)]
        starts, stops = [0, *(switch + 1 for switch in switches)], [*switches, len(self.program)]
        return tuple(_families(self.program[start:stop]) for start, stop in zip(starts, stops, strict=True))

    @cached_property
    def path_profiles(self) -> tuple[tuple[Indices, Indices], ...]:
        """By configuration: colours of each row's routers for traffic along y, of each column's along x.

        ``[rows]``, ``[cols]``; a core at ``(row, col)`` holds the sum of the two.
        """
        return tuple(self._profile(families) for families in self.configurations)

    def _profile(self, families: Mapping[tuple[Axis, str], Routes]) -> tuple[Indices, Indices]:
        down, across = np.zeros(self.rows, np.int64), np.zeros(self.cols, np.int64)
        for (axis, _), routes in families.items():
            if axis == "y":
                down += routes.at
            else:
                across += routes.at
        return down, across

    def memory_at(self, index: int) -> int:
        """Elements that a core holds while the ``index``-th step of the program runs."""
        live = sum(tile.elements for tile in self.tiles.values() if self._lives(tile, index))
        return live + self.program[index].scratch

    def _lives(self, tile: Tile, index: int) -> bool:
        first, last = self._spans.get(tile.name, (0, len(self.program) - 1))
        begins = 0 if tile.role in ("input", "resident") else first
        ends = len(self.program) - 1 if tile.role in ("output", "resident") else last
        return begins <= index <= ends

    @cached_property
    def _spans(self) -> Mapping[str, tuple[int, int]]:
        spans: dict[str, tuple[int, int]] = {}
        for index, step in enumerate(self.program):
            for name in (*step.reads, *step.writes):
                spans[name] = (spans.get(name, (index, index))[0], index)
        return spans

    def summary(self) -> Summary:
        """Routes, hops, stages, turns and memory of the whole algorithm."""
        walked = [(step, times) for step, times in self.walk() if not isinstance(step, Multiply | Pointwise)]
        fill = sum(leaf.fill for leaf, _ in self.communications() if isinstance(leaf, ReduceToRing))
        peak = max((self.memory_at(index) for index in range(len(self.program))), default=0)
        return Summary(
            paths_per_core=max(int(down.max() + across.max()) for down, across in self.path_profiles),
            colours=max(
                sum(routes.total for routes in families.values()) for families in self.configurations
            ),
            critical_hops=fill + sum(step.hops * times for step, times in walked),
            hops_per_step=max((step.hops for step, _ in walked), default=0),
            stages=fill + sum(step.stages * times for step, times in walked),
            shifts=sum(times for step, times in walked if _turns_a_ring(step)),
            peak_elements=peak,
            peak_bytes=peak * self.element_bytes,
            reconfigurations=len(self.configurations) - 1,
        )


def _walk(program: tuple[Step, ...]) -> Iterator[tuple[Leaf | Together, int]]:
    for step in program:
        if isinstance(step, Repeat):
            yield from ((inner, step.count) for inner in step.body if step.count)
        elif not isinstance(step, Reconfigure):
            yield step, 1


def _communications(program: tuple[Step, ...]) -> Iterator[tuple[Communication, int]]:
    for step, times in _walk(program):
        for leaf in step.steps if isinstance(step, Together) else (step,):
            if isinstance(leaf, _COMMUNICATIONS):
                yield leaf, times


def _families(program: tuple[Step, ...]) -> Mapping[tuple[Axis, str], Routes]:
    families: dict[tuple[Axis, str], Routes] = {}
    for step, _ in _communications(program):
        for routes in step.routes:
            at, total = np.tile(routes.at, step.line.groups), routes.total
            known = families.get((step.axis, routes.name))
            if known is not None:
                at, total = np.maximum(known.at, at), max(known.total, total)
            families[step.axis, routes.name] = Routes(routes.name, total, at)
    return families


def _turns_a_ring(step: Leaf | Together) -> bool:
    return any(isinstance(leaf, Shift) for leaf in (step.steps if isinstance(step, Together) else (step,)))


def _grouped(line: Line) -> str:
    return f" in {line.groups} groups" if line.groups > 1 else ""


def _routes(name: str, at: Indices) -> Routes:
    return Routes(name, int(at.max()), at)
