"""Logical rings laid on a line of cores: INTERLEAVE of WaferLLM (arXiv 2502.04563, algorithm 1) and Cannon's.

A ring is a permutation. ``ring_order(kind, size)[k]`` is the place on the line of the k-th member of the ring,
``ring_position`` its inverse. The interleaved ring goes up the even places and comes back down the odd ones, so
neighbours on the ring lie at most two places apart; in the cyclic ring they lie one apart, except that the last
and the first are a whole line apart.
"""

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

RingKind = Literal["interleaved", "cyclic"]
Indices = NDArray[np.int64]


@lru_cache(maxsize=256)
def ring_order(kind: RingKind, size: int) -> Indices:
    """Places on the line in the order of the ring: ``0, 2, 4, ..., 5, 3, 1`` or ``0, 1, 2, ...``; ``[size]``."""
    if size < 1:
        raise ValueError(f"a ring needs at least one core, got {size}")
    places = np.arange(size)
    if kind == "interleaved":
        places = np.concatenate([places[0::2], places[1::2][::-1]])
    return _frozen(places)


@lru_cache(maxsize=256)
def ring_position(kind: RingKind, size: int) -> Indices:
    """Position on the ring of each place of the line; ``[size]``."""
    return _frozen(np.argsort(ring_order(kind, size)))


@lru_cache(maxsize=256)
def send_to(kind: RingKind, size: int, turns: int = 1) -> Indices:
    """Place that each place's data lies at after ``turns`` turns forward (backward if negative); ``[size]``."""
    order, position = ring_order(kind, size), ring_position(kind, size)
    return _frozen(order[(position + turns) % size])


def receive_from(kind: RingKind, size: int, turns: int = 1) -> Indices:
    """Inverse of :func:`send_to`."""
    return send_to(kind, size, -turns)


@lru_cache(maxsize=256)
def alignment_turns(kind: RingKind, size: int) -> Indices:
    """Turns by which each line skews its tiles before a compute-shift loop, forward positive; ``[size]``.

    Line ``p`` needs what lies ``ring_position[p]`` places ahead on the ring. It turns the shorter way round, at
    most ``size // 2`` times.
    """
    position = ring_position(kind, size)
    return _frozen(np.where(position <= size // 2, -position, size - position))


def interleaved_colours(size: int) -> Indices:
    """Colour 0, 1 or 2 of the flow that each core of an interleaved ring sends; ``[size]``.

    A flow over two hops has the colour of the core in between, modulo 3. The flow 1 -> 0 folds around core 0 and
    the flow at the other end around the last core, so sending, receiving and passing on never share a colour.
    """
    source = np.arange(size)
    target = send_to("interleaved", size)
    between = (source + target) // 2
    between = np.where(np.abs(source - target) == 1, np.where(target == 0, 0, size - 1), between)
    return _frozen(between % 3)


def _frozen(array: NDArray[np.int64]) -> Indices:
    array = array.astype(np.int64)
    array.flags.writeable = False
    return array
