"""What the element-wise steps of a decode layer compute, each core on its own tiles ``[rows, cols, batch, ...]``."""

from collections.abc import Mapping

import numpy as np

from lapidist.hardware.wafer.activations import ACTIVATIONS
from lapidist.hardware.wafer.decode_layer import DecodePlan
from lapidist.hardware.wafer.layer_numbers import LayerNumbers
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.ring import Indices
from lapidist.hardware.wafer.rope import rotate
from lapidist.hardware.wafer.simulator import Operation
from lapidist.hardware.wafer.softcap import softcap


class DecodeOperations:
    """Functions by the names that :func:`decode_layer` and :func:`decode_head` use.

    Attributes
    ----------
    positions : of each sequence's new token, ``[batch]``; see :meth:`move_to`.
    window : tokens that the layer's queries see, themselves included; None for all.
    """

    def __init__(self, plan: DecodePlan, numbers: LayerNumbers) -> None:
        self.plan, self.heads, self.numbers = plan, plan.heads, numbers
        self.window: int | None = None
        self.move_to(np.zeros(plan.batch, np.int64))

    def move_to(self, positions: Indices) -> None:
        """Compute tokens at ``positions [batch]`` from here on."""
        self.positions = positions
        cos, sin = self.numbers.rope.by_column(self.heads, positions, positions + 1)
        self._cos, self._sin = (factor.swapaxes(0, 1)[None, :, :, None, None, :] for factor in (cos, sin))

    def by_name(self) -> Mapping[str, Operation]:
        return {
            "square sums": lambda x: np.square(x).sum(axis=-1),
            "normalize": self.normalize,
            "head square sums": self.head_square_sums,
            "normalize heads": self.normalize_heads,
            "split heads": self.split_heads,
            "append": self.append,
            "cap scores": self.cap_scores,
            "mask": self.mask,
            "exponentials": self.exponentials,
            "divide": lambda scores, sums: scores / sums[..., None],
            "merge heads": lambda attended: attended.reshape(*attended.shape[:3], -1),
            "add": np.add,
            "activation": self.activation,
            "cap logits": self.cap_logits,
        }

    def normalize(self, x: Array, sums: Array, weight: Array) -> Array:
        mean = sums / self.plan.shape.hidden_size
        return x * self._inverse_root(mean, x)[..., None] * weight

    def head_square_sums(self, qkv: Array) -> Array:
        """One sum for each query and key head on each core, ``[rows, cols, batch, heads]``."""
        query, key, _ = self._by_head(qkv)
        squares = [np.square(part).sum(axis=-1).reshape(*qkv.shape[:3], -1) for part in (query, key)]
        return np.concatenate(squares, axis=-1)

    def normalize_heads(self, qkv: Array, sums: Array, query_norm: Array, key_norm: Array) -> Array:
        query, key, value = self._by_head(qkv)
        scale = self._inverse_root(sums / self.plan.shape.head_dim, qkv)
        of_query, of_key = np.split(scale, [self.heads.kv_heads * self.heads.queries_per_kv], axis=-1)
        query = query * of_query.reshape(*query.shape[:-1], 1) * query_norm[:, :, :, None, None]
        key = key * of_key.reshape(*key.shape[:-1], 1) * key_norm[:, :, :, None, None]
        parts = [part.reshape(*qkv.shape[:3], -1) for part in (query, key, value)]
        return np.concatenate(parts, axis=-1)

    def split_heads(self, qkv: Array) -> tuple[Array, Array, Array]:
        """Query ``[rows, cols, batch, kv heads, queries of one, rotated]``, key and value of the new token."""
        query, key, value = self._by_head(qkv)
        return rotate(query, self._cos, self._sin), rotate(key, self._cos, self._sin), value

    def append(
        self,
        keys: Array,
        values: Array,
        occupancy: Array,
        arriving: Array,
        new_key: Array,
        new_value: Array,
    ) -> tuple[Array, Array, Array]:
        """The last row keeps the new token behind those it has, of each sequence that has one."""
        for sequence in np.flatnonzero(arriving[-1, 0]):
            place = int(occupancy[-1, 0, sequence])
            keys[-1, :, sequence][..., place, :] = new_key[-1, :, sequence, :, 0]
            values[-1, :, sequence][..., place, :] = new_value[-1, :, sequence, :, 0]
        occupancy[-1] += arriving[-1]
        return keys, values, occupancy

    def cap_scores(self, scores: Array) -> Array:
        """Capped as they will be once :meth:`mask` has scaled them."""
        assert self.numbers.attention_softcap is not None
        return softcap(scores, self.numbers.attention_softcap / self.numbers.attention_scale)

    def cap_logits(self, logits: Array) -> Array:
        assert self.numbers.final_softcap is not None
        return softcap(logits, self.numbers.final_softcap)

    def mask(self, scores: Array, occupancy: Array) -> tuple[Array, Array]:
        """Scaled scores of the tokens that a row holds and the query sees, and the largest of each query in each row.

        Rows hold tokens in order, so a row knows the positions of its own from how many there are above it.
        """
        by_row = occupancy[..., None, None, None]
        place = np.arange(scores.shape[-1])
        held = place < by_row
        if self.window is not None:
            above = np.cumsum(by_row, axis=0) - by_row
            held &= above + place > self.positions[:, None, None, None] - self.window
        scale = scores.dtype.type(self.numbers.attention_scale)
        masked = np.where(held, scores * scale, scores.dtype.type(-np.inf))
        return masked, masked.max(axis=-1)

    def exponentials(self, scores: Array, maxima: Array) -> tuple[Array, Array]:
        weights = np.exp(scores - maxima[..., None])
        return weights, weights.sum(axis=-1)

    def activation(self, gate_and_up: Array) -> Array:
        gate, up = np.split(gate_and_up, 2, axis=-1)
        return ACTIVATIONS[self.plan.variant.activation](gate) * up

    def _inverse_root(self, mean: Array, x: Array) -> Array:
        return np.asarray(1 / np.sqrt(mean + self.numbers.norm_eps)).astype(x.dtype)

    def _by_head(self, qkv: Array) -> tuple[Array, Array, Array]:
        """``[rows, cols, batch, kv heads, heads of one, dims]`` of queries, keys and values."""
        plan, heads = self.plan, self.heads
        query, key, value = np.split(qkv, [plan.queries, plan.queries + plan.keys], axis=-1)
        front = (*qkv.shape[:3], heads.kv_heads)
        return (
            query.reshape(*front, heads.queries_per_kv, heads.rotated),
            key.reshape(*front, 1, heads.rotated),
            value.reshape(*front, 1, heads.values()),
        )
