"""What the element-wise steps of a prefill layer compute, each core on its own tiles.

Tiles are ``[y slots, x slots, *tile]``; all changes of shape here stay inside a core.
"""

from collections.abc import Mapping

import numpy as np

from lapidist.hardware.wafer.head_groups import HeadGroups
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.prefill_layer import PrefillPlan
from lapidist.hardware.wafer.simulator import Operation


def prefill_operations(
    plan: PrefillPlan, rope_frequencies: Array, norm_eps: float, window: int | None = None
) -> Mapping[str, Operation]:
    """Functions by the names that :func:`prefill_layer` uses.

    Parameters
    ----------
    rope_frequencies : ``[head_dim // 2]``.
    window : tokens that a query sees, itself included; None for all.
    """
    work = _Prefill(plan, rope_frequencies, norm_eps, window)
    return {
        "square sums": work.square_sums,
        "normalize": work.normalize,
        "query heads": work.query_heads,
        "key heads": work.key_heads,
        "value heads": work.value_heads,
        "copy": np.copy,
        "mask": work.mask,
        "exponentials": work.exponentials,
        "divide": work.divide,
        "merge heads": work.merge_heads,
        "add": np.add,
        "silu times": silu_times,
    }


def silu_times(gate: Array, up: Array) -> Array:
    """``gate * sigmoid(gate) * up``, of tiles of any shape."""
    with np.errstate(over="ignore"):
        return gate / (1 + np.exp(-gate)) * up


def rotate(heads: Array, angles: Array) -> Array:
    """RoPE of ``heads [..., 2 * pairs]``, first halves in front, by ``angles [..., pairs]``."""
    first, second = np.split(heads, 2, axis=-1)
    cos, sin = np.cos(angles).astype(heads.dtype), np.sin(angles).astype(heads.dtype)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def column_frequencies(heads: HeadGroups, frequencies: Array) -> Array:
    """Of the pairs that each column holds, ``[cols, pairs]``; padding does not turn."""
    return np.append(frequencies, 0.0)[heads.pair_of]


class _Prefill:
    """The sizes of a plan at hand for every function."""

    def __init__(
        self, plan: PrefillPlan, rope_frequencies: Array, norm_eps: float, window: int | None
    ) -> None:
        self.plan, self.heads, self.norm_eps, self.window = plan, plan.heads, norm_eps, window
        tokens = plan.group_slots * plan.group_slot_tokens
        positions = np.arange(tokens).reshape(plan.group_slots, 1, plan.group_slot_tokens, 1)
        self.angles = positions * column_frequencies(plan.heads, rope_frequencies)[:, None, :]

    def square_sums(self, x: Array) -> Array:
        """``[slots, slots, tokens, hidden]`` to one sum a token on each core, ``[slots, cols, tokens]``."""
        return self._columns(np.square(x).sum(axis=-1)).sum(axis=2)

    def normalize(self, x: Array, sums: Array, weight: Array) -> Array:
        mean = sums / self.plan.shape.hidden_size
        scale = (1 / np.sqrt(mean + self.norm_eps)).astype(x.dtype)
        return x * scale.repeat(self.plan.slots_per_col, axis=1)[..., None] * weight

    def query_heads(self, q: Array) -> Array:
        """``[group slots, cols, kv heads, queries of one * tokens, rotated]``."""
        heads = self.heads
        split = self._to_groups(q, (heads.kv_heads, heads.queries_per_kv, heads.rotated))
        rotated = rotate(split, self.angles[:, :, :, None, None, :])
        by_head = rotated.transpose(0, 1, 3, 4, 2, 5)
        return by_head.reshape(*by_head.shape[:3], -1, heads.rotated)

    def key_heads(self, k: Array) -> Array:
        """``[group slots, cols, kv heads, tokens, rotated]``."""
        split = self._to_groups(k, (self.heads.kv_heads, self.heads.rotated))
        return np.ascontiguousarray(rotate(split, self.angles[:, :, :, None, :]).swapaxes(2, 3))

    def value_heads(self, v: Array) -> Array:
        """``[group slots, cols * value slots of one, kv heads, tokens, values]``."""
        plan = self.plan
        split = self._to_groups(v, (plan.value_slots_per_col, self.heads.kv_heads, plan.head_values))
        by_slot = split.transpose(0, 1, 3, 4, 2, 5)
        return np.ascontiguousarray(by_slot).reshape(plan.group_slots, -1, *by_slot.shape[3:])

    def mask(self, scores: Array) -> tuple[Array, Array]:
        """Scaled scores, nothing of tokens out of sight, and the largest of each query on each core."""
        plan = self.plan
        size, slots = plan.group_slot_tokens, plan.group_slots
        position = np.arange(slots * size).reshape(slots, size)
        queries = np.tile(position, self.heads.queries_per_kv)[:, None, None, :, None]
        keys = np.tile(position, (self.heads.groups, 1))[None, :, None, None, :]
        scale = scores.dtype.type(self.plan.shape.head_dim**-0.5)
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
        ).transpose(0, 5, 1, 2, 3, 4, 6)
        by_token = split.reshape(plan.slots, plan.slot_tokens, plan.cols, -1)
        width = plan.attended * plan.slots_per_col
        by_token = np.pad(by_token, [(0, 0)] * 3 + [(0, width - by_token.shape[-1])])
        slots = by_token.reshape(plan.slots, plan.slot_tokens, plan.slots, plan.attended)
        return np.ascontiguousarray(slots.swapaxes(1, 2))

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
