"""What the element-wise steps of a prefill layer compute, each core on its own tiles.

Tiles are ``[y slots, x slots, *tile]``; all changes of shape here stay inside a core.
"""

from collections.abc import Mapping

import numpy as np

from lapidist.hardware.wafer.activations import ACTIVATIONS
from lapidist.hardware.wafer.layer_numbers import LayerNumbers
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.prefill_layer import PrefillPlan
from lapidist.hardware.wafer.rope import rotate
from lapidist.hardware.wafer.simulator import Operation
from lapidist.hardware.wafer.softcap import softcap


def prefill_operations(
    plan: PrefillPlan, numbers: LayerNumbers, window: int | None = None
) -> Mapping[str, Operation]:
    """Functions by the names that :func:`prefill_layer` uses; a query sees ``window`` tokens, None for all."""
    work = _Prefill(plan, numbers, window)
    return {
        "square sums": work.square_sums,
        "normalize": work.normalize,
        "head square sums": work.head_square_sums,
        "normalize queries": work.normalize_queries,
        "normalize keys": work.normalize_keys,
        "query heads": work.query_heads,
        "key heads": work.key_heads,
        "value heads": work.value_heads,
        "copy": np.copy,
        "cap scores": work.cap_scores,
        "mask": work.mask,
        "exponentials": work.exponentials,
        "divide": work.divide,
        "merge heads": work.merge_heads,
        "add": np.add,
        "activation": lambda gate, up: ACTIVATIONS[plan.variant.activation](gate) * up,
    }


class _Prefill:
    """The sizes of a plan at hand for every function."""

    def __init__(self, plan: PrefillPlan, numbers: LayerNumbers, window: int | None) -> None:
        self.plan, self.heads, self.numbers, self.window = plan, plan.heads, numbers, window
        positions = np.arange(plan.group_slots * plan.group_slot_tokens)
        lengths = np.maximum(positions + 1, plan.tokens)
        cos, sin = numbers.rope.by_column(self.heads, positions, lengths)
        slots = (plan.group_slots, plan.group_slot_tokens, plan.cols, -1)
        self.cos, self.sin = cos.reshape(slots).swapaxes(1, 2), sin.reshape(slots).swapaxes(1, 2)

    def square_sums(self, x: Array) -> Array:
        """``[slots, slots, tokens, hidden]`` to one sum a token on each core, ``[slots, cols, tokens]``."""
        return self._columns(np.square(x).sum(axis=-1)).sum(axis=2)

    def normalize(self, x: Array, sums: Array, weight: Array) -> Array:
        scale = self._inverse_root(sums / self.plan.shape.hidden_size, x)
        return x * scale.repeat(self.plan.slots_per_col, axis=1)[..., None] * weight

    def head_square_sums(self, q: Array, k: Array) -> Array:
        """One sum for each token's query and key heads on each core, ``[group slots, cols, tokens, heads]``."""
        squares = [np.square(part).sum(axis=-1) for part in (self._queries(q), self._keys(k))]
        return np.concatenate([part.reshape(*part.shape[:3], -1) for part in squares], axis=-1)

    def normalize_queries(self, q: Array, sums: Array, weight: Array) -> Array:
        split = self._queries(q)
        scale = self._head_scale(sums, q)[..., : split.shape[3] * split.shape[4]]
        normalized = (
            split * scale.reshape(*split.shape[:-1], 1) * self._head_weight(weight)[..., None, None, :]
        )
        return self._from_groups(normalized, self.plan.queries)

    def normalize_keys(self, k: Array, sums: Array, weight: Array) -> Array:
        split = self._keys(k)
        scale = self._head_scale(sums, k)[..., -split.shape[3] :]
        normalized = split * scale[..., None] * self._head_weight(weight)[..., None, :]
        return self._from_groups(normalized, self.plan.keys)

    def query_heads(self, q: Array) -> Array:
        """``[group slots, cols, kv heads, queries of one * tokens, rotated]``."""
        heads = self.heads
        rotated = rotate(self._queries(q), self.cos[..., None, None, :], self.sin[..., None, None, :])
        by_head = rotated.transpose(0, 1, 3, 4, 2, 5)
        return by_head.reshape(*by_head.shape[:3], -1, heads.rotated)

    def key_heads(self, k: Array) -> Array:
        """``[group slots, cols, kv heads, tokens, rotated]``."""
        rotated = rotate(self._keys(k), self.cos[..., None, :], self.sin[..., None, :])
        return np.ascontiguousarray(rotated.swapaxes(2, 3))

    def value_heads(self, v: Array) -> Array:
        """``[group slots, cols * value slots of one, kv heads, tokens, values]``."""
        plan = self.plan
        split = self._to_groups(v, (plan.value_slots_per_col, self.heads.kv_heads, plan.head_values))
        by_slot = split.transpose(0, 1, 3, 4, 2, 5)
        return np.ascontiguousarray(by_slot).reshape(plan.group_slots, -1, *by_slot.shape[3:])

    def cap_scores(self, scores: Array) -> Array:
        """Capped as they will be once :meth:`mask` has scaled them."""
        assert self.numbers.attention_softcap is not None
        return softcap(scores, self.numbers.attention_softcap / self.numbers.attention_scale)

    def mask(self, scores: Array) -> tuple[Array, Array]:
        """Scaled scores, nothing of tokens out of sight, and the largest of each query on each core."""
        plan = self.plan
        size, slots = plan.group_slot_tokens, plan.group_slots
        position = np.arange(slots * size).reshape(slots, size)
        queries = np.tile(position, self.heads.queries_per_kv)[:, None, None, :, None]
        keys = np.tile(position, (self.heads.groups, 1))[None, :, None, None, :]
        scale = scores.dtype.type(self.numbers.attention_scale)
        seen = keys <= queries
        if self.window is not None:
            seen &= keys > queries - self.window
        masked = np.where(seen, scores * scale, scores.dtype.type(-np.inf))
        return masked, self._group_columns(masked).max(axis=(2, -1))

    def exponentials(self, scores: Array, maxima: Array) -> tuple[Array, Array]:
        weights = np.exp(scores - self._to_group_slots(maxima))
        return weights, self._group_columns(weights).sum(axis=(2, -1))

    def divide(self, scores: Array, sums: Array) -> Array:
        return scores / self._to_group_slots(sums)

    def merge_heads(self, attended: Array) -> Array:
        """Back to ``[slots, slots, tokens, channels]``, the input of the output projection."""
        plan, heads = self.plan, self.heads
        split = attended.reshape(
            plan.group_slots,
            plan.cols,
            plan.value_slots_per_col,
            heads.kv_heads,
            heads.queries_per_kv,
            plan.group_slot_tokens,
            plan.head_values,
        ).transpose(0, 1, 5, 2, 3, 4, 6)
        return self._from_groups(split, plan.attended)

    def _inverse_root(self, mean: Array, x: Array) -> Array:
        return np.asarray(1 / np.sqrt(mean + self.numbers.norm_eps)).astype(x.dtype)

    def _head_scale(self, sums: Array, x: Array) -> Array:
        return self._inverse_root(sums / self.plan.shape.head_dim, x)

    def _head_weight(self, weight: Array) -> Array:
        """``[rows, cols, 1, rotated]`` beside the tokens of every group slot."""
        return weight.repeat(self.plan.group_slots // self.plan.rows, axis=0)

    def _queries(self, q: Array) -> Array:
        """``[group slots, cols, group slot tokens, kv heads, queries of one, rotated]``."""
        heads = self.heads
        return self._to_groups(q, (heads.kv_heads, heads.queries_per_kv, heads.rotated))

    def _keys(self, k: Array) -> Array:
        """``[group slots, cols, group slot tokens, kv heads, rotated]``."""
        return self._to_groups(k, (self.heads.kv_heads, self.heads.rotated))

    def _columns(self, tiles: Array) -> Array:
        """``[y, x slots, ...]`` as ``[y, cols, slots of one, ...]``."""
        return tiles.reshape(tiles.shape[0], self.plan.cols, self.plan.slots_per_col, *tiles.shape[2:])

    def _group_columns(self, tiles: Array) -> Array:
        return tiles.reshape(tiles.shape[0], self.plan.cols, self.plan.group_slots_per_col, *tiles.shape[2:])

    def _to_group_slots(self, rows: Array) -> Array:
        """``[group slots, cols, kv heads, queries]`` beside the scores of every slot."""
        return rows.repeat(self.plan.group_slots_per_col, axis=1)[..., None]

    def _to_groups(self, tiles: Array, parts: tuple[int, ...]) -> Array:
        """``[slots, slots, tokens, width]`` to ``[group slots, cols, group slot tokens, *parts]``."""
        plan = self.plan
        by_token = self._columns(tiles).transpose(0, 3, 1, 2, 4)
        by_token = by_token.reshape(plan.group_slots, plan.group_slot_tokens, plan.cols, -1)
        used = by_token[..., : int(np.prod(parts))]
        return used.reshape(*by_token.shape[:3], *parts).swapaxes(1, 2)

    def _from_groups(self, tiles: Array, slot_width: int) -> Array:
        """Back from ``[group slots, cols, group slot tokens, ...]`` to ``[slots, slots, tokens, slot_width]``."""
        plan = self.plan
        by_token = tiles.swapaxes(1, 2).reshape(plan.slots, plan.slot_tokens, plan.cols, -1)
        padding = slot_width * plan.slots_per_col - by_token.shape[-1]
        by_token = np.pad(by_token, [(0, 0)] * 3 + [(0, padding)])
        slots = by_token.reshape(plan.slots, plan.slot_tokens, plan.slots, slot_width)
        return np.ascontiguousarray(slots.swapaxes(1, 2))
