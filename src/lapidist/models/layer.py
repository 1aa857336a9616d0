"""One decoder layer: its operators and how they follow each other."""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass

from torch import Tensor

from lapidist.kernels.activation import gated_activation, quantized_gated_activation
from lapidist.kernels.attention import paged_attention
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.norm import RMSNorm
from lapidist.kernels.output_range import output_range
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.quantized_linear import QuantizedLinear
from lapidist.kernels.rope import apply_rope
from lapidist.kernels.softmax import Softmax
from lapidist.models.config import ModelConfig

# A linear layer of any kind; whoever watches its inputs may stand in its place.
Projection = Callable[..., Tensor]


@dataclass(frozen=True)
class Layer:
    """One layer's operators.

    Attributes
    ----------
    qkv, gate_up : give queries, keys and values side by side; gate, then up.
    window : tokens that a query sees, itself included; None for all.
    """

    input_norm: RMSNorm
    qkv: Projection
    qk_norm: RMSNorm | None
    o: Projection
    post_attention_norm: RMSNorm | None
    pre_mlp_norm: RMSNorm
    gate_up: Projection
    down: Projection
    post_mlp_norm: RMSNorm | None
    window: int | None


@dataclass(frozen=True)
class LayerStep:
    """What a layer runs on beside its hidden states.

    Attributes
    ----------
    cos_sin : of rotary embedding, each ``[tokens, 1, rotary_dim]``.
    cache, index : the layer's keys and values are number ``index`` of the cache.
    observe : called with the queries as attention gets them, the cache that has the keys already, and the layout.
    """

    config: ModelConfig
    cos_sin: tuple[Tensor, Tensor]
    layout: PagedLayout
    cache: PagedKVCache
    index: int
    softmax: Softmax
    observe: Callable[[Tensor, PagedKVCache, PagedLayout], None] | None = None


def run_layer(layer: Layer, hidden: Tensor, step: LayerStep) -> None:
    """Add the layer's attention and feed-forward block to ``hidden`` ``[tokens, hidden_size]``."""
    attended = layer.o(attend(layer, hidden, step))
    hidden += attended if layer.post_attention_norm is None else layer.post_attention_norm(attended)
    mixed = _mlp(layer, hidden, step.config.hidden_act)
    hidden += mixed if layer.post_mlp_norm is None else layer.post_mlp_norm(mixed)


def attend(layer: Layer, hidden: Tensor, step: LayerStep) -> Tensor:
    """What the layer's attention gives to ``o``, ``[tokens, num_heads * head_dim]``."""
    config = step.config
    heads, kv_heads = config.num_heads, config.num_kv_heads
    qkv = _normalized(layer.input_norm, layer.qkv, hidden).view(
        len(hidden), heads + 2 * kv_heads, config.head_dim
    )
    qk, values = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
    if layer.qk_norm is not None:
        qk = layer.qk_norm(qk)
    qk = apply_rope(qk, *step.cos_sin)
    step.cache.write(step.index, step.layout.slots, qk[:, heads:], values)
    query = qk[:, :heads]
    if step.observe is not None:
        step.observe(query, step.cache, step.layout)
    attended = paged_attention(
        query,
        step.cache,
        step.index,
        step.layout,
        config.attention_scale,
        layer.window,
        config.attention_softcap,
        step.softmax,
    )
    return attended.view(len(hidden), -1)


def project_heads(
    layer: Layer, hidden: Tensor, config: ModelConfig, cos_sin: tuple[Tensor, Tensor], heads: range
) -> Tensor:
    """Queries and keys of some heads alone, as attention gets them: ``[tokens, len(heads), head_dim]``.

    Parameters
    ----------
    heads : neighbours among the ``num_heads`` heads of queries and, after them, the ``num_kv_heads`` of keys.
    """
    start, stop = heads.start * config.head_dim, heads.stop * config.head_dim
    rows = _normalized(layer.input_norm, layer.qkv, hidden, (start, stop))
    projected = rows.reshape(len(hidden), len(heads), config.head_dim)
    if layer.qk_norm is not None:
        norm = copy(layer.qk_norm)
        norm.weight = norm.weight[heads.start : heads.stop]
        projected = norm(projected)
    return apply_rope(projected, *cos_sin)


def _mlp(layer: Layer, hidden: Tensor, activation: str) -> Tensor:
    gate_up = _normalized(layer.pre_mlp_norm, layer.gate_up, hidden)
    if isinstance(layer.down, QuantizedLinear):
        return layer.down(quantized_gated_activation(gate_up, activation))
    return layer.down(gated_activation(gate_up, activation))


def _normalized(
    norm: RMSNorm, projection: Projection, hidden: Tensor, outputs: tuple[int, int] | None = None
) -> Tensor:
    """The projection of what was normalized, and quantized in the same pass where the projection takes integers.

    ``outputs`` are the first and the last plus one of those that are wanted; None is all.
    """
    rows = norm.quantized(hidden) if isinstance(projection, QuantizedLinear) else norm(hidden)
    return projection(rows) if outputs is None else output_range(projection, *outputs)(rows)
