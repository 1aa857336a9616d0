"""Pictures of a mesh: for every core a number that says how an algorithm treats it."""

import numpy as np

from lapidist.hardware.wafer.communications import (
    AllGather,
    Broadcast,
    Communication,
    Reduce,
    RingExchange,
    Shift,
)
from lapidist.hardware.wafer.decode_layer import CachePolicy
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.kv_capacity import even_rows
from lapidist.hardware.wafer.line import Flows
from lapidist.hardware.wafer.ring import Indices


def hop_map(description: Description) -> Indices:
    """Links that the longest message of each core crosses in one step; ``[rows, cols]``.

    The message that a core sends; of a multicast the one that it receives, of the farthest root if roots take turns.
    """
    down, across = np.zeros(description.rows, np.int64), np.zeros(description.cols, np.int64)
    for step, _ in description.communications():
        hops = np.tile(_hops_along(step), step.line.groups)
        profile = down if step.axis == "y" else across
        np.maximum(profile, hops, out=profile)
    return np.maximum(down[:, None], across[None, :])


def _hops_along(step: Communication) -> Indices:
    """Longest message of each core of a line; ``[cores]``."""
    cores = step.line.cores
    place = np.arange(cores)
    if isinstance(step, Shift | RingExchange):
        return _sent_hops(step.flows)
    if isinstance(step, Reduce):
        return _sent_hops(step.phase.flows)
    if isinstance(step, AllGather) or (isinstance(step, Broadcast) and step.root == "turn"):
        return np.maximum(place, cores - 1 - place)
    if isinstance(step, Broadcast):
        return np.abs(place - int(step.root))
    return np.full(cores, step.hops)  # neighbours only


def _sent_hops(flows: Flows) -> Indices:
    hops = np.zeros(flows.cores, np.int64)
    np.maximum.at(hops, flows.source, np.abs(flows.source - flows.target))
    return hops


def cache_map(rows: int, cols: int, prompt: int, output: int, policy: CachePolicy) -> Indices:
    """Tokens of the KV cache that each core holds after a request; ``[rows, cols]``.

    The prompt lies even over rows. ``shift`` keeps it so, ``concat`` puts all new tokens on the last row.

    Raises
    ------
    ValueError : sizes are not positive, or the policy is unknown.
    """
    if min(rows, cols, prompt) < 1 or output < 0:
        raise ValueError(f"a cache needs cores and a prompt, got {rows} x {cols} cores and {prompt} tokens")
    if policy == "shift":
        held = even_rows(prompt + output, rows)
    elif policy == "concat":
        held = even_rows(prompt, rows)
        held[-1] += output
    else:
        raise ValueError(f"unknown policy {policy!r} of the KV cache; known are shift and concat")
    return np.repeat(held[:, None], cols, axis=1)
