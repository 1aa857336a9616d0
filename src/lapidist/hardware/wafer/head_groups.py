"""How attention heads lie on the columns of a mesh.

Columns are cut into as many groups as divide both them and the key/value heads. A group holds whole heads, with the
queries that share them (grouped-query attention), and each head's dimensions are spread over the group's columns, so
attention runs inside groups. A column has a dimension together with the one that RoPE rotates it with. All of this is
an order of weight columns, fixed when weights are placed. Where only the first channels of a head are rotated, the
others are paired up too, for no more than their place.
"""

from dataclasses import dataclass
from functools import cached_property
from math import gcd
from typing import Protocol

import numpy as np

from lapidist.hardware.wafer.layout import PADDING
from lapidist.hardware.wafer.ring import Indices


class LayerShape(Protocol):
    """What a layer's placement needs of a model; every ``workload.lowering.DecoderShape`` has it."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_heads(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...
    @property
    def head_dim(self) -> int: ...


@dataclass(frozen=True)
class HeadGroups:
    """Heads of a layer on ``cols`` columns; ``rotary_dim`` channels of a head are rotated, 0 for all.

    Raises
    ------
    ValueError : heads do not share key/value heads evenly, or head dimensions do not pair up.
    """

    cols: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int = 0

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads or self.head_dim % 2:
            raise ValueError(
                f"heads must be a multiple of key/value heads and head_dim even, got {self.num_heads} heads, "
                f"{self.num_kv_heads} key/value heads and head_dim {self.head_dim}"
            )
        if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= self.head_dim:
            raise ValueError(
                f"rotary_dim must be even and from 0 to head_dim {self.head_dim}, got {self.rotary_dim}"
            )

    @staticmethod
    def of(shape: LayerShape, cols: int, rotary_dim: int = 0) -> "HeadGroups":
        return HeadGroups(cols, shape.num_heads, shape.num_kv_heads, shape.head_dim, rotary_dim)

    @property
    def groups(self) -> int:
        return gcd(self.cols, self.num_kv_heads)

    @property
    def cores(self) -> int:
        """Columns of a group."""
        return self.cols // self.groups

    @property
    def kv_heads(self) -> int:
        """Key/value heads of a group."""
        return self.num_kv_heads // self.groups

    @property
    def queries_per_kv(self) -> int:
        return self.num_heads // self.num_kv_heads

    @property
    def pairs(self) -> int:
        """Rotated pairs of one head's dimensions on a column, padding included."""
        return -(-(self.head_dim // 2) // self.cores)

    @property
    def rotated(self) -> int:
        """Dimensions of one query or key head on a column."""
        return 2 * self.pairs

    def values(self, slots_per_core: int = 1) -> int:
        """Dimensions of one value head in each of a column's slots."""
        return -(-self.head_dim // (self.cores * slots_per_core))

    @cached_property
    def pair_of(self) -> Indices:
        """Which pair of a head each place of a column holds; ``[cols, pairs]``."""
        pair = (np.arange(self.cols) % self.cores)[:, None] * self.pairs + np.arange(self.pairs)
        return np.where(pair < self.head_dim // 2, pair, PADDING)

    @cached_property
    def kv_head_of(self) -> Indices:
        """Key/value heads of each column; ``[cols, kv_heads]``."""
        return (np.arange(self.cols) // self.cores)[:, None] * self.kv_heads + np.arange(self.kv_heads)

    @cached_property
    def query_head_of(self) -> Indices:
        """Query heads of each column, those of one key/value head together; ``[cols, kv_heads, queries_per_kv]``."""
        return self.kv_head_of[..., None] * self.queries_per_kv + np.arange(self.queries_per_kv)

    def query_columns(self) -> Indices:
        """Channels of the query projection in a column's order; ``[cols, kv_heads, queries_per_kv, rotated]``."""
        return self._channels(self.query_head_of, self.rotated_dims())

    def key_columns(self) -> Indices:
        """Channels of the key projection in a column's order; ``[cols, kv_heads, rotated]``."""
        return self._channels(self.kv_head_of, self.rotated_dims())

    def value_columns(self, slots_per_core: int = 1) -> Indices:
        """Channels of the value projection; ``[cols, slots_per_core, kv_heads, values]``."""
        return self._channels(self.kv_head_of, self._value_dims(slots_per_core))

    def output_rows(self, slots_per_core: int = 1) -> Indices:
        """Channels that the output projection reads; ``[cols, slots_per_core, kv_heads, queries_per_kv, values]``."""
        return self._channels(self.query_head_of, self._value_dims(slots_per_core))

    def rotated_dims(self) -> Indices:
        """Dimensions of a head by column, first halves of pairs and then second halves; ``[cols, rotated]``."""
        turning = (self.rotary_dim or self.head_dim) // 2
        passing = self.head_dim // 2 - turning
        first = np.concatenate([np.arange(turning), 2 * turning + np.arange(passing), [PADDING]])
        second = np.concatenate([np.arange(turning) + turning, first[turning:-1] + passing, [PADDING]])
        return np.concatenate([first[self.pair_of], second[self.pair_of]], axis=1)

    def _value_dims(self, slots_per_core: int) -> Indices:
        """``[cols, slots_per_core, values]``."""
        size = self.values(slots_per_core)
        slot = (np.arange(self.cols) % self.cores)[:, None] * slots_per_core + np.arange(slots_per_core)
        dims = slot[..., None] * size + np.arange(size)
        return np.where(dims < self.head_dim, dims, PADDING)

    def _channels(self, heads: Indices, dims: Indices) -> Indices:
        """``head * head_dim + dim`` of ``heads [cols, *h]`` and ``dims [cols, *s, d]``; ``[cols, *s, *h, d]``."""
        slots = dims.ndim - 2
        heads = heads.reshape(self.cols, *(1,) * slots, *heads.shape[1:], 1)
        extra = heads.ndim - 2 - slots
        dims = dims.reshape(*dims.shape[:-1], *(1,) * extra, dims.shape[-1])
        return np.where(dims == PADDING, PADDING, heads * self.head_dim + dims)
