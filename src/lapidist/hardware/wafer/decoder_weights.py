"""A decoder's parameters as plain arrays, whatever the family."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lapidist.hardware.wafer.decoder_variant import ModelShape
from lapidist.hardware.wafer.placement import Array
from lapidist.hardware.wafer.rope import Rope


@dataclass(frozen=True)
class LayerWeights:
    """Of one layer; projections as ``[output channels, input channels]``, norms and biases as ``[channels]``.

    Norms multiply as they are: the one that Gemma adds is part of them. ``query_norm`` and ``key_norm`` are of one
    head, ``post_norm1`` and ``post_norm2`` behind attention and feed-forward block. What the family lacks is None.
    """

    norm1: Array
    query: Array
    key: Array
    value: Array
    output: Array
    norm2: Array
    gate: Array
    up: Array
    down: Array
    query_bias: Array | None = None
    key_bias: Array | None = None
    value_bias: Array | None = None
    output_bias: Array | None = None
    gate_bias: Array | None = None
    up_bias: Array | None = None
    down_bias: Array | None = None
    query_norm: Array | None = None
    key_norm: Array | None = None
    post_norm1: Array | None = None
    post_norm2: Array | None = None


@dataclass(frozen=True)
class DecoderWeights:
    """Of a whole decoder.

    Attributes
    ----------
    embedding, head : ``[vocab_size, hidden_size]``. ``norm``: the last one, ``[hidden_size]``.
    rope : which channels of a head turn, and how far.
    norm_eps : added to mean squares.
    """

    embedding: Array
    layers: Sequence[LayerWeights]
    norm: Array
    head: Array
    rope: Rope
    norm_eps: float


_PROJECTIONS = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_NORMS = {
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "query_norm": "self_attn.q_norm",
    "key_norm": "self_attn.k_norm",
}
_SANDWICH = {
    "post_norm1": "post_attention_layernorm",
    "norm2": "pre_feedforward_layernorm",
    "post_norm2": "post_feedforward_layernorm",
}
"""Where a Hugging Face checkpoint has what :class:`LayerWeights` calls so."""

_FUSED = {"self_attn.qkv_proj": ("query", "key", "value"), "mlp.gate_up_proj": ("gate", "up")}

ReadTensor = Callable[[str, tuple[int, ...]], Array]
"""Gives the tensor of a name that must have a shape."""


def checkpoint_weights(
    shape: ModelShape,
    tensor: ReadTensor,
    rope: Rope,
    norm_eps: float,
    tied: bool = False,
    fused: bool = False,
    norm_offset: float = 0.0,
) -> DecoderWeights:
    """Parameters of a checkpoint in the layout of Hugging Face hubs.

    Parameters
    ----------
    tied : the embedding is the output head too.
    fused : queries, keys and values are one tensor, gate and up another (Phi-3).
    norm_offset : added to the weights of norms (1 for Gemma).
    """
    layers = [
        _layer(shape, tensor, f"model.layers.{number}.", fused, norm_offset)
        for number in range(shape.num_layers)
    ]
    vocabulary = (shape.vocab_size, shape.hidden_size)
    embedding = tensor("model.embed_tokens.weight", vocabulary)
    head = embedding if tied else tensor("lm_head.weight", vocabulary)
    norm = tensor("model.norm.weight", (shape.hidden_size,)) + norm_offset
    return DecoderWeights(embedding, layers, norm, head, rope, norm_eps)


def _layer(
    shape: ModelShape, tensor: ReadTensor, prefix: str, fused: bool, norm_offset: float
) -> LayerWeights:
    sides = layer_sides(shape)
    found: dict[str, Array] = {}
    for name, parts in _FUSED.items() if fused else ():
        rows = [sides[part][0] for part in parts]
        whole = tensor(f"{prefix}{name}.weight", (sum(rows), shape.hidden_size))
        found |= dict(zip(parts, np.split(whole, np.cumsum(rows)[:-1]), strict=True))
    norms = _NORMS | (_SANDWICH if shape.sandwich_norms else {})
    for ours, channels in sides.items():
        if ours in found:
            continue
        if ours in norms:
            found[ours] = tensor(f"{prefix}{norms[ours]}.weight", channels) + norm_offset
        else:
            theirs = _PROJECTIONS[ours.removesuffix("_bias")]
            kind = "bias" if ours.endswith("_bias") else "weight"
            found[ours] = tensor(f"{prefix}{theirs}.{kind}", channels)
    return LayerWeights(**found)


def require_shapes(shape: ModelShape, weights: DecoderWeights) -> None:
    """Raises ValueError for a parameter whose sides are not those of ``shape``."""
    hidden = shape.hidden_size
    whole = {
        "embedding": (shape.vocab_size, hidden),
        "head": (shape.vocab_size, hidden),
        "norm": (hidden,),
    }
    if len(weights.layers) != shape.num_layers:
        raise ValueError(f"the model has {shape.num_layers} layers, weights are of {len(weights.layers)}")
    found = [(name, getattr(weights, name), sides) for name, sides in whole.items()]
    for number, layer in enumerate(weights.layers):
        found += [
            (f"layer {number}'s {name}", getattr(layer, name), sides)
            for name, sides in layer_sides(shape).items()
        ]
    for name, array, sides in found:
        if array is None or array.shape != sides:
            given = "nothing" if array is None else list(array.shape)
            raise ValueError(f"{name} must be {list(sides)}, got {given}")


def layer_sides(shape: ModelShape) -> Mapping[str, tuple[int, ...]]:
    """Sides of each parameter of a layer, by its name in :class:`LayerWeights`."""
    hidden, wide = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    found: dict[str, tuple[int, ...]] = {
        "norm1": (hidden,),
        "query": (queries, hidden),
        "key": (keys, hidden),
        "value": (keys, hidden),
        "output": (hidden, queries),
        "norm2": (hidden,),
        "gate": (wide, hidden),
        "up": (wide, hidden),
        "down": (hidden, wide),
    }
    if shape.qkv_bias:
        found |= {"query_bias": (queries,), "key_bias": (keys,), "value_bias": (keys,)}
    if shape.o_bias:
        found["output_bias"] = (hidden,)
    if shape.mlp_bias:
        found |= {"gate_bias": (wide,), "up_bias": (wide,), "down_bias": (hidden,)}
    if shape.qk_norm:
        found |= {"query_norm": (shape.head_dim,), "key_norm": (shape.head_dim,)}
    if shape.sandwich_norms:
        found |= {"post_norm1": (hidden,), "post_norm2": (hidden,)}
    return found
