"""What a mesh algorithm does, as data: the one description that is simulated, run on ranks and costed.

A :class:`Description` is a program of ``steps`` for a mesh in which every core does the same. It is small whatever the
mesh (loops are :class:`Repeat`), so describing an algorithm for 720 x 720 cores takes microseconds.

Who reads it:

* ``simulator`` runs it on NumPy arrays that hold every core's tile, ``distributed`` with one rank a core. Both
  iterate ``description.execution()`` and look only at what the steps say, so they move the same bytes.
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

from lapidist.hardware.wafer.communications import COMMUNICATIONS, Communication, ReduceToRing, Routes, Shift
from lapidist.hardware.wafer.line import Axis
from lapidist.hardware.wafer.ring import Indices
from lapidist.hardware.wafer.steps import (
    Leaf,
    Multiply,
    Pointwise,
    Reconfigure,
    Repeat,
    Step,
    Together,
    leaves,
    unrolled,
)

Role = Literal["input", "output", "work", "resident"]


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

    def execution(self) -> Iterator[tuple[Leaf, int]]:
        """Leaves in an order in which they can be run, loops unrolled, each with the repetition of its loop."""
        return unrolled(self.program)

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
        for leaf in leaves(step):
            if isinstance(leaf, COMMUNICATIONS):
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
    return any(isinstance(leaf, Shift) for leaf in leaves(step))
