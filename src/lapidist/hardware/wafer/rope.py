"""Rotary position embedding as the simulated cores use it: which channels turn, and how far."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lapidist.hardware.wafer.head_groups import HeadGroups
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.ring import Indices

CosSin = Callable[[Indices, Indices], tuple[Array, Array]]
"""From positions ``[tokens]`` and the lengths that scalings for long contexts look at, ``[tokens]``: the larger of the
prompt's length and the position plus one. Two of ``[tokens, channels // 2]``."""


@dataclass(frozen=True)
class Rope:
    """The first ``channels`` of a head turn, each of their first half with one of their second; others pass."""

    channels: int
    cos_sin: CosSin

    @staticmethod
    def plain(frequencies: Array) -> "Rope":
        """Radians a position of each rotated pair, ``[channels // 2]``."""

        def cos_sin(positions: Indices, lengths: Indices) -> tuple[Array, Array]:
            angles = positions[:, None] * frequencies
            return np.cos(angles), np.sin(angles)

        return Rope(2 * len(frequencies), cos_sin)

    def by_column(self, heads: HeadGroups, positions: Indices, lengths: Indices) -> tuple[Array, Array]:
        """Factors of the pairs that each column holds, two of ``[tokens, cols, pairs]``; padding does not turn."""
        cos, sin = self.cos_sin(positions, lengths)
        passing = ((0, 0), (0, heads.head_dim // 2 + 1 - cos.shape[1]))
        return (
            np.pad(cos, passing, constant_values=1)[:, heads.pair_of],
            np.pad(sin, passing)[:, heads.pair_of],
        )


def rotate(heads: Array, cos: Array, sin: Array) -> Array:
    """``heads [..., 2 * pairs]``, first halves in front, turned by ``cos`` and ``sin [..., pairs]``."""
    first, second = np.split(heads, 2, axis=-1)
    cos, sin = cos.astype(heads.dtype), sin.astype(heads.dtype)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
