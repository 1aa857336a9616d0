"""Where the parameters, activations and KV cache of a decoder lie in prefill and in decode.

Parameters are matrices ``[input channels, output channels]``, caches ``[tokens, channels]``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lapidist.hardware.wafer.decode_layer import DecodePlan
from lapidist.hardware.wafer.decoder_variant import FUSED_BY_DECODE
from lapidist.hardware.wafer.decoder_weights import LayerWeights
from lapidist.hardware.wafer.layout import PADDING, Layout, blocks, crossed, grid, skewed
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.prefill_layer import PrefillPlan
from lapidist.hardware.wafer.ring import Indices


@dataclass(frozen=True)
class Parameter:
    """A matrix and where it lies: in prefill under ``prefill_name``, in decode as columns of ``decode_name``."""

    prefill_name: str
    decode_name: str
    prefill: Layout
    decode: Layout


def matrices(layer: LayerWeights) -> Mapping[str, Array]:
    """A layer's parameters as ``[input channels, output channels]`` by their names in prefill."""
    products = {
        "wq": layer.query,
        "wk": layer.key,
        "wv": layer.value,
        "wo": layer.output,
        "wgate": layer.gate,
        "wup": layer.up,
        "wdown": layer.down,
    }
    vectors = {
        "norm1": layer.norm1,
        "norm2": layer.norm2,
        "bq": layer.query_bias,
        "bk": layer.key_bias,
        "bv": layer.value_bias,
        "bo": layer.output_bias,
        "bgate": layer.gate_bias,
        "bup": layer.up_bias,
        "bdown": layer.down_bias,
        "q norm": layer.query_norm,
        "k norm": layer.key_norm,
        "post norm1": layer.post_norm1,
        "post norm2": layer.post_norm2,
    }
    rows = {name: vector[None] for name, vector in vectors.items() if vector is not None}
    return {name: matrix.T for name, matrix in products.items()} | rows


def parameters(prefill: PrefillPlan, decode: DecodePlan) -> tuple[Parameter, ...]:
    """All parameters of a layer, those that decode fuses in their order there."""
    late = _decode_layouts(decode)
    return tuple(
        Parameter(name, FUSED_BY_DECODE.get(name, name), layout, late[name])
        for name, layout in _prefill_layouts(prefill).items()
    )


def _prefill_layouts(plan: PrefillPlan) -> Mapping[str, Layout]:
    heads, slots = plan.heads, plan.slots
    hidden = blocks(plan.shape.hidden_size, slots)
    wide = blocks(plan.shape.intermediate_size, slots)
    queries = _per_slot(heads.query_columns(), slots, plan.queries)
    keys = _per_slot(heads.key_columns(), slots, plan.keys)
    values = _per_slot(heads.value_columns(plan.value_slots_per_col), slots, plan.values)
    attended = _per_slot(heads.output_rows(plan.value_slots_per_col), slots, plan.attended)
    products = {
        "wq": skewed(hidden, queries),
        "wk": skewed(hidden, keys),
        "wv": skewed(hidden, values),
        "wo": skewed(attended, hidden),
        "wgate": skewed(hidden, wide),
        "wup": skewed(hidden, wide),
        "wdown": skewed(wide, hidden),
    }
    along = {
        "hidden": _alike_in_rows(slots, hidden),
        "queries": _alike_in_rows(slots, queries),
        "keys": _alike_in_rows(slots, keys),
        "values": _alike_in_rows(slots, values),
        "intermediate": _alike_in_rows(slots, wide),
        "head": _alike_in_rows(plan.rows, heads.rotated_dims()),
    }
    return products | {name: along[channels] for name, channels in plan.variant.vectors().items()}


def _alike_in_rows(rows: int, channels: Indices) -> Layout:
    """A vector split over x like ``channels [x slots, size]``."""
    return grid(np.zeros((rows, 1), np.int64), channels)


def _per_slot(channels: Indices, slots: int, width: int) -> Indices:
    """Channels of each column, ``[cols, ...]``, over its slots, padded behind; ``[slots, width]``."""
    cols = len(channels)
    flat = channels.reshape(cols, -1)
    padding = slots // cols * width - flat.shape[1]
    return np.pad(flat, [(0, 0), (0, padding)], constant_values=PADDING).reshape(slots, width)


def _decode_layouts(plan: DecodePlan) -> Mapping[str, Layout]:
    heads, shape = plan.heads, plan.shape
    hidden = blocks(shape.hidden_size, plan.rows)
    wide = blocks(shape.intermediate_size, plan.cols)

    def per_col(channels: Indices) -> Indices:
        return channels.reshape(plan.cols, -1)

    queries, keys = per_col(heads.query_columns()), per_col(heads.key_columns())
    values = per_col(heads.value_columns())
    products = {
        "wq": grid(hidden, queries),
        "wk": grid(hidden, keys),
        "wv": grid(hidden, values),
        "wo": crossed(per_col(heads.output_rows()), hidden),
        "wgate": grid(hidden, wide),
        "wup": grid(hidden, wide),
        "wdown": crossed(wide, hidden),
    }
    along = {
        "hidden": crossed(np.zeros((plan.cols, 1), np.int64), hidden),
        "queries": _alike_in_rows(plan.rows, queries),
        "keys": _alike_in_rows(plan.rows, keys),
        "values": _alike_in_rows(plan.rows, values),
        "intermediate": _alike_in_rows(plan.rows, wide),
        "head": _alike_in_rows(plan.rows, heads.rotated_dims()),
    }
    return products | {name: along[channels] for name, channels in plan.variant.vectors().items()}


def prefill_hidden(plan: PrefillPlan) -> Layout:
    """Of hidden states ``[tokens, hidden_size]``."""
    return grid(blocks(plan.tokens, plan.slots, plan.slot_tokens), blocks(plan.shape.hidden_size, plan.slots))


def decode_hidden(plan: DecodePlan, rows: Indices) -> Layout:
    """Of some ``rows`` of hidden states: split over y, alike in all columns."""
    return crossed(np.tile(rows, (plan.cols, 1)), blocks(plan.shape.hidden_size, plan.rows))


def prefill_cache(plan: PrefillPlan) -> tuple[Layout, Layout]:
    """Of keys and values, ``[tokens, kv heads * head_dim]``, as :func:`cache_as_matrices` shapes their tiles."""
    tokens = blocks(plan.tokens, plan.group_slots, plan.group_slot_tokens)
    keys = plan.heads.key_columns().reshape(plan.cols, -1)
    values = plan.heads.value_columns(plan.value_slots_per_col)
    values = values.reshape(plan.cols * plan.value_slots_per_col, -1)
    return grid(tokens, keys), grid(tokens, values)


def cache_as_matrices(tiles: Array) -> Array:
    """``[y, x, kv heads, tokens, dims]`` to ``[y, x, tokens, kv heads * dims]``."""
    by_token = tiles.swapaxes(2, 3)
    return by_token.reshape(*by_token.shape[:3], -1)


def decode_cache(plan: DecodePlan, row_tokens: Indices) -> tuple[Layout, Layout]:
    """Of keys and values, when rows hold ``row_tokens [rows]`` tokens each, oldest in the top row."""
    first = np.cumsum(row_tokens) - row_tokens
    place = np.arange(plan.row_capacity)
    tokens = np.where(place < row_tokens[:, None], first[:, None] + place, PADDING)
    heads = plan.heads
    return (
        grid(tokens, heads.key_columns().reshape(plan.cols, -1)),
        grid(tokens, heads.value_columns().reshape(plan.cols, -1)),
    )


def matrices_as_cache(tiles: Array, kv_heads: int) -> Array:
    """``[rows, cols, tokens, kv heads * dims]`` to ``[rows, cols, 1, kv heads, tokens, dims]``."""
    split = tiles.reshape(*tiles.shape[:3], kv_heads, -1)
    return np.ascontiguousarray(split.swapaxes(2, 3))[:, :, None]
