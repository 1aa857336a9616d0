"""What the element-wise steps of a decode layer compute, each core on its own tiles ``[rows, cols, batch, ...]``."""

from collections.abc import Mapping

import numpy as np

from lapidist.hardware.wafer.decode_layer import DecodePlan
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.prefill_operations import column_frequencies, rotate, silu_times
from lapidist.hardware.wafer.simulator import Operation


class DecodeOperations:
    """Functions by the names that :func:`decode_layer` uses.

    Attributes
    ----------
    position : of the new token, to be set before a layer runs.
    window : tokens that the layer's queries see, themselves included; None for all.
    """

    def __init__(self, plan: DecodePlan, rope_frequencies: Array, norm_eps: float) -> None:
        self.plan, self.heads, self.norm_eps = plan, plan.heads, norm_eps
        self.frequencies = column_frequencies(plan.heads, rope_frequencies)
        self.position = 0
        self.window: int | None = None

    def by_name(self) -> Mapping[str, Operation]:
        return {
            "square sums": lambda x: np.square(x).sum(axis=-1),
            "normalize": self.normalize,
            "split heads": self.split_heads,
            "append": self.append,
            "mask": self.mask,
            "exponentials": self.exponentials,
            "divide": lambda scores, sums: scores / sums[..., None],
            "merge heads": lambda attended: attended.reshape(*attended.shape[:3], -1),
            "add": np.add,
            "silu times": lambda gate_and_up: silu_times(*np.split(gate_and_up, 2, axis=-1)),
        }

    def normalize(self, x: Array, sums: Array, weight: Array) -> Array:
        scale = (1 / np.sqrt(sums / self.plan.shape.hidden_size + self.norm_eps)).astype(x.dtype)
        return x * scale[..., None] * weight

    def split_heads(self, qkv: Array) -> tuple[Array, Array, Array]:
        """Query ``[rows, cols, batch, kv heads, queries of one, rotated]``, key and value of the new token."""
        plan, heads = self.plan, self.heads
        query, key, value = np.split(qkv, [plan.queries, plan.queries + plan.keys], axis=-1)
        angles = (self.position * self.frequencies)[:, None, None, None, :]
        front = (*qkv.shape[:3], heads.kv_heads)
        return (
            rotate(query.reshape(*front, heads.queries_per_kv, heads.rotated), angles),
            rotate(key.reshape(*front, 1, heads.rotated), angles),
            value.reshape(*front, 1, heads.values()),
        )

    def append(
        self, keys: Array, values: Array, occupancy: Array, new_key: Array, new_value: Array
    ) -> tuple[Array, Array, Array]:
        """The last row keeps the new token behind those it has."""
        place = int(occupancy[-1, 0, 0])
        keys[-1, ..., place, :] = new_key[-1, ..., 0, :]
        values[-1, ..., place, :] = new_value[-1, ..., 0, :]
        occupancy[-1] += 1
        return keys, values, occupancy

    def mask(self, scores: Array, occupancy: Array) -> tuple[Array, Array]:
        """Scaled scores of the tokens that a row holds and the query sees, and the largest of each query in each row.

        Rows hold tokens in order, so a row knows the positions of its own from how many there are above it.
        """
        by_row = occupancy.reshape(*occupancy.shape[:2], 1, 1, 1, 1)
        place = np.arange(scores.shape[-1])
        held = place < by_row
        if self.window is not None:
            above = np.cumsum(by_row, axis=0) - by_row
            held &= above + place > self.position - self.window
        scale = scores.dtype.type(self.plan.shape.head_dim**-0.5)
        masked = np.where(held, scores * scale, scores.dtype.type(-np.inf))
        return masked, masked.max(axis=-1)

    def exponentials(self, scores: Array, maxima: Array) -> tuple[Array, Array]:
        weights = np.exp(scores - maxima[..., None])
        return weights, weights.sum(axis=-1)
