"""What the steps of descriptions amount to, in the quantities that cost constants multiply.

Terms of many programs lie in a few arrays, so a calibration evaluates all its measurements at once, and a model of 80
layers costs as much time as one layer.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from lapidist.hardware.wafer.communications import (
    AllGather,
    Broadcast,
    Communication,
    Reduce,
    ReduceToRing,
    RingExchange,
    Shift,
)
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.steps import Leaf, Multiply, Pointwise, Together

Numbers = NDArray[np.float64]
T = TypeVar("T", float, Numbers)
"""One row's value, or a column of values."""

RING_HOPS = 2
"""Hops of a step on an interleaved ring; the calibrated cost of a step contains them."""

VECTOR = 8
"""Rows from which a product runs as one of matrices where no tiles move; fewer are vectors, one after the other."""

# An interior core streams a vector in one pass; the root of a phase takes two, one for each side.
PASSES_OF_A_PHASE, PASSES_OF_A_BROADCAST = 2, 1

OPERATIONS_PER_ELEMENT = {
    "add": 1,
    "copy": 1,
    "scale": 1,
    "mask": 1,
    "square_sum": 2,
    "normalize": 2,
    "rope": 3,
    "softmax": 4,
    "silu": 4,
    "gelu": 6,
    "gelu_pytorch_tanh": 10,
    "softcap": 3,
    "multiply": 1,
}
"""As ``workload.lower`` counts them: a transcendental function is one operation."""


class Loop(NamedTuple, Generic[T]):
    """Products of tiles, ``times`` times, with transfers behind them or none.

    ``hops`` are those beyond a ring's two, ``link_bytes`` go through the busiest link, ``moved_elements`` through a
    core's memory; ``steps`` is 1 if tiles move. ``chain_*`` belong to sums that end on a moving root (MeshGEMM-T);
    they follow one another as a wavefront, which fills once for each of ``loops``.
    """

    times: T
    k_iterations: T
    calls: T
    macs: T
    steps: T
    hops: T
    link_bytes: T
    moved_elements: T
    loops: T
    chains: T
    chain_length: T
    chain_elements: T


class Transfer(NamedTuple, Generic[T]):
    """Tiles that move while nothing else happens, ``times`` times."""

    times: T
    hops: T
    stages: T
    link_bytes: T


class AllReduce(NamedTuple, Generic[T]):
    """A vector summed over a line of cores; ``element_passes`` are its elements times how often they stream by."""

    times: T
    hops: T
    stages: T
    element_passes: T


class Local(NamedTuple, Generic[T]):
    """Work of each core on its own, and starts of matrix products."""

    times: T
    launches: T
    gemv_calls: T
    gemv_macs: T
    operations: T


Row = Loop[float] | Transfer[float] | AllReduce[float] | Local[float]
Program = Sequence[tuple[Description, float]]
"""Descriptions in order, and how often each runs."""


class Table(NamedTuple):
    """Rows of one kind, ``[rows, fields]``, and the program that each belongs to, ``[rows]``."""

    values: Numbers
    owner: NDArray[np.int64]


@dataclass(frozen=True)
class CostTerms:
    """All rows of ``programs`` programs."""

    programs: int
    loops: Table
    transfers: Table
    allreduces: Table
    locals_: Table


def cost_terms(programs: Iterable[Program]) -> CostTerms:
    """Terms of all programs.

    Raises
    ------
    ValueError : an element-wise operation is unknown.
    """
    collected = [
        [row for description, runs in program for row in _rows(description, runs)] for program in programs
    ]
    return CostTerms(
        len(collected), *(_table(collected, kind) for kind in (Loop, Transfer, AllReduce, Local))
    )


def _table(programs: list[list[Row]], kind: type[Any]) -> Table:
    found = [(row, index) for index, rows in enumerate(programs) for row in rows if isinstance(row, kind)]
    values = np.array([row for row, _ in found], dtype=float).reshape(-1, len(kind._fields))
    return Table(values, np.array([index for _, index in found], dtype=np.int64))


def _rows(description: Description, runs: float) -> Iterator[Row]:
    allreduce: list[tuple[Communication, float]] = []
    moves_tiles = any(_moves_tiles(step) for step, _ in description.communications())
    has_products_of_tiles = False
    for step, repetitions in description.walk():
        times = repetitions * runs
        if isinstance(step, Reduce | RingExchange | Broadcast):
            if allreduce and _starts_an_allreduce(step):
                yield _allreduce(allreduce, runs)
                allreduce = []
            allreduce.append((step, repetitions))
            continue
        if allreduce:
            yield _allreduce(allreduce, runs)
            allreduce = []
        if isinstance(step, Multiply) and step.m < VECTOR and not moves_tiles:
            yield Local(times, 0, step.products * step.m * step.k, step.macs, 0)
        elif isinstance(step, Multiply):
            has_products_of_tiles = True
            yield _loop((step,), times, runs, description.element_bytes)
        elif isinstance(step, Together) and any(isinstance(leaf, Multiply) for leaf in step.steps):
            has_products_of_tiles = True
            yield _loop(step.steps, times, runs, description.element_bytes)
        elif isinstance(step, Pointwise):
            yield Local(times, 0, 0, 0, _operations(step))
        else:
            yield _transfer(step, times, description.element_bytes)
    if allreduce:
        yield _allreduce(allreduce, runs)
    if has_products_of_tiles:
        yield Local(runs, 1, 0, 0, 0)


def _moves_tiles(step: Communication) -> bool:
    return isinstance(step, Shift | AllGather) or (isinstance(step, Broadcast) and step.root == "turn")


def _operations(step: Pointwise) -> float:
    if step.operation not in OPERATIONS_PER_ELEMENT:
        raise ValueError(
            f"the cost of the element-wise operation {step.operation!r} is unknown; known are "
            f"{', '.join(OPERATIONS_PER_ELEMENT)}"
        )
    return OPERATIONS_PER_ELEMENT[step.operation] * step.elements


def _loop(leaves: Sequence[Leaf], times: float, loops: float, element_bytes: int) -> Loop[float]:
    products = [leaf for leaf in leaves if isinstance(leaf, Multiply)]
    chains = [leaf for leaf in leaves if isinstance(leaf, ReduceToRing)]
    moves = [leaf for leaf in leaves if not isinstance(leaf, Multiply | Pointwise | ReduceToRing)]
    return Loop(
        times=times,
        k_iterations=sum(leaf.products * leaf.k for leaf in products),
        calls=sum(leaf.products * leaf.k * leaf.n for leaf in products),
        macs=sum(leaf.macs for leaf in products),
        steps=float(bool(moves)),
        hops=max((max(0, leaf.hops - RING_HOPS) for leaf in moves), default=0),
        link_bytes=max((leaf.elements for leaf in moves), default=0) * element_bytes,
        moved_elements=sum(leaf.elements for leaf in moves),
        loops=loops,
        chains=len(chains),
        chain_length=sum(leaf.fill for leaf in chains),
        chain_elements=sum(leaf.elements for leaf in chains),
    )


def _transfer(step: Communication | Together, times: float, element_bytes: int) -> Transfer[float]:
    leaves = step.communications if isinstance(step, Together) else (step,)
    return Transfer(
        times,
        max((max(0, leaf.hops - RING_HOPS) for leaf in leaves), default=0),
        step.stages,
        max((leaf.elements for leaf in leaves), default=0) * element_bytes,
    )


def _starts_an_allreduce(step: Reduce | RingExchange | Broadcast) -> bool:
    return (isinstance(step, Reduce) and step.level == 0) or (
        isinstance(step, RingExchange) and step.mode == "reduce"
    )


def _allreduce(steps: list[tuple[Communication, float]], runs: float) -> AllReduce[float]:
    return AllReduce(
        runs,
        sum(step.hops * times for step, times in steps),
        sum(step.stages * times for step, times in steps),
        sum(_passes(step) * step.elements * times for step, times in steps),
    )


def _passes(step: Communication) -> int:
    if isinstance(step, Reduce):
        return PASSES_OF_A_PHASE if step.stages else 0
    return PASSES_OF_A_BROADCAST
