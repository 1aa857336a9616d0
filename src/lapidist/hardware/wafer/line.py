"""A line of cores along one axis of the mesh, and the flows that one step sends over it."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from lapidist.hardware.wafer.ring import Indices, RingKind, send_to

Axis = Literal["x", "y"]
"""``x`` runs along a row of cores (east-west), ``y`` along a column (north-south)."""


@dataclass(frozen=True)
class Line:
    """Cores that take part in a step together, along one axis.

    Attributes
    ----------
    axis : which way the line runs.
    cores : physical cores of one line.
    slots : places of one line's data, a multiple of ``cores``; slot ``s`` lies on core ``s // (slots // cores)``.
        More slots than cores is how a mesh that is not square runs the algorithms of square meshes.
    groups : equal lines that follow one another along the axis, each for itself (attention heads).
    used : slots of each core, counted from its first, in which a product's second factor and result lie; all if 0.
        Where a matrix has fewer columns than a ring has slots, the other slots only pass the first factor on.
    """

    axis: Axis
    cores: int
    slots: int = 0
    groups: int = 1
    used: int = 0

    def __post_init__(self) -> None:
        if self.slots == 0:
            object.__setattr__(self, "slots", self.cores)
        if self.used == 0:
            object.__setattr__(self, "used", max(1, self.slots // max(1, self.cores)))
        if self.cores < 1 or self.groups < 1 or self.slots % self.cores or self.used > self.slots_per_core:
            raise ValueError(
                f"a line needs at least one core, one group and whole slots a core, got {self.cores} cores, "
                f"{self.groups} groups, {self.slots} slots"
            )

    @property
    def slots_per_core(self) -> int:
        return self.slots // self.cores

    @property
    def used_slots(self) -> Indices:
        """Places of the used slots on one line; ``[cores * used]``."""
        first = np.arange(self.cores)[:, None] * self.slots_per_core
        return (first + np.arange(self.used)).ravel()

    @property
    def extent(self) -> int:
        """Cores of the mesh along the axis."""
        return self.cores * self.groups


@dataclass(frozen=True)
class Flows:
    """Messages of one step on one line: message ``i`` goes from core ``source[i]`` to core ``target[i]``."""

    source: Indices
    target: Indices
    cores: int

    @cached_property
    def hops(self) -> int:
        """Links that the longest message crosses."""
        return int(np.abs(self.source - self.target).max(initial=0))

    @cached_property
    def sent(self) -> Indices:
        """Messages that each core sends; ``[cores]``."""
        return np.bincount(self.source, minlength=self.cores)

    @cached_property
    def received(self) -> Indices:
        """Messages that each core receives; ``[cores]``."""
        return np.bincount(self.target, minlength=self.cores)

    @cached_property
    def forwarded(self) -> Indices:
        """Messages that each core's router passes on without its core seeing them; ``[cores]``."""
        low, high = np.minimum(self.source, self.target), np.maximum(self.source, self.target)
        return _covered(low + 1, high, self.cores)

    @cached_property
    def touching(self) -> Indices:
        """Messages that each core's router handles, each of which needs a colour of its own; ``[cores]``."""
        return self.sent + self.received + self.forwarded

    @cached_property
    def by_direction(self) -> tuple["Flows", "Flows"]:
        """Messages towards the first core of the line, and those away from it."""
        up = self.target < self.source
        return (
            Flows(self.source[up], self.target[up], self.cores),
            Flows(self.source[~up], self.target[~up], self.cores),
        )

    @cached_property
    def link_loads(self) -> tuple[Indices, Indices]:
        """Messages on each link upward (core ``i`` to ``i + 1``) and downward; two of ``[cores - 1]``."""
        up = self.target > self.source
        return (
            _covered(self.source[up], self.target[up], self.cores)[: self.cores - 1],
            _covered(self.target[~up], self.source[~up], self.cores)[: self.cores - 1],
        )


def _covered(first: Indices, stop: Indices, size: int) -> Indices:
    """How many of the ranges ``first[i] .. stop[i] - 1`` cover each index; ``[size]``."""
    steps = np.bincount(first, minlength=size + 1) - np.bincount(stop, minlength=size + 1)
    return np.cumsum(steps)[:size]


@lru_cache(maxsize=256)
def ring_flows(kind: RingKind, cores: int, slots: int, turns: int = 1) -> Flows:
    """Messages of one turn of a ring of ``slots`` on ``cores``; moves inside a core are none."""
    per_core = slots // cores
    source = np.arange(slots) // per_core
    target = send_to(kind, slots, turns) // per_core
    leaving = source != target
    return Flows(source[leaving], target[leaving], cores)


@lru_cache(maxsize=256)
def multicast_flows(cores: int, root: int) -> Flows:
    """One message from ``root`` to the far end on each side, read by every core it passes."""
    ends = np.array([end for end in (0, cores - 1) if end != root], dtype=np.int64)
    return Flows(np.full(len(ends), root, dtype=np.int64), ends, cores)
