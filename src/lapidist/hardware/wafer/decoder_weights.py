"""A decoder's parameters as plain arrays, and what a mesh can run of the families there are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lapidist.hardware.wafer.placement import Array
from lapidist.workload.lowering import DecoderShape


@dataclass(frozen=True)
class LayerWeights:
    """Of one layer; projections as ``[output channels, input channels]``, norms and biases as ``[channels]``."""

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


@dataclass(frozen=True)
class DecoderWeights:
    """Of a whole decoder.

    Attributes
    ----------
    embedding, head : ``[vocab_size, hidden_size]``. ``norm``: the last one, ``[hidden_size]``.
    rope_frequencies : radians a position of each rotated pair, ``[head_dim // 2]``.
    norm_eps : added to mean squares.
    """

    embedding: Array
    layers: Sequence[LayerWeights]
    norm: Array
    head: Array
    rope_frequencies: Array
    norm_eps: float


_NAMES = {
    "norm1": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "norm2": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_BIASES = {"query_bias": "self_attn.q_proj", "key_bias": "self_attn.k_proj", "value_bias": "self_attn.v_proj"}
"""Where a Hugging Face checkpoint has what :class:`LayerWeights` calls so."""


def checkpoint_weights(
    shape: DecoderShape,
    tensor: Callable[[str, tuple[int, ...]], Array],
    rope_frequencies: Array,
    norm_eps: float,
    tied: bool = False,
) -> DecoderWeights:
    """Parameters of a checkpoint in the layout of Hugging Face hubs.

    Parameters
    ----------
    tensor : gives the tensor of a name that must have a shape.
    tied : the embedding is the output head too.
    """
    sides = _layer_sides(shape)
    layers = [
        LayerWeights(
            **{
                ours: tensor(f"model.layers.{number}.{theirs}.weight", sides[ours])
                for ours, theirs in _NAMES.items()
            },
            **{
                ours: tensor(f"model.layers.{number}.{theirs}.bias", sides[ours])
                for ours, theirs in _BIASES.items()
                if ours in sides
            },
        )
        for number in range(shape.num_layers)
    ]
    vocabulary = (shape.vocab_size, shape.hidden_size)
    embedding = tensor("model.embed_tokens.weight", vocabulary)
    head = embedding if tied else tensor("lm_head.weight", vocabulary)
    norm = tensor("model.norm.weight", (shape.hidden_size,))
    return DecoderWeights(embedding, layers, norm, head, rope_frequencies, norm_eps)


def require_plain_decoder(shape: DecoderShape) -> None:
    """A mesh runs Llama's layer and its near relatives: Mistral's sliding windows, Qwen2's biases.

    Raises
    ------
    ValueError : the model has something else; the sentence names it.
    """
    extras = {
        "biases of its outputs": shape.o_bias or shape.mlp_bias,
        "norms of queries and keys": shape.qk_norm,
        "norms behind its blocks": shape.sandwich_norms,
        "scaled embeddings": shape.embedding_scale != 1.0,
        "capped logits": shape.final_softcap is not None,
        f"the activation {shape.hidden_act}": shape.hidden_act != "silu",
    }
    found = [name for name, present in extras.items() if present]
    if found:
        raise ValueError(f"the wafer runs decoders like Llama, this model has {', '.join(found)}")


def require_shapes(shape: DecoderShape, weights: DecoderWeights) -> None:
    """Raises ValueError for a parameter whose sides are not those of ``shape``."""
    hidden = shape.hidden_size
    whole = {
        "embedding": (shape.vocab_size, hidden),
        "head": (shape.vocab_size, hidden),
        "norm": (hidden,),
        "rope_frequencies": (shape.head_dim // 2,),
    }
    if len(weights.layers) != shape.num_layers:
        raise ValueError(f"the model has {shape.num_layers} layers, weights are of {len(weights.layers)}")
    found = [(name, getattr(weights, name), sides) for name, sides in whole.items()]
    for number, layer in enumerate(weights.layers):
        found += [
            (f"layer {number}'s {name}", getattr(layer, name), sides)
            for name, sides in _layer_sides(shape).items()
        ]
    for name, array, sides in found:
        if array is None or array.shape != sides:
            given = "nothing" if array is None else list(array.shape)
            raise ValueError(f"{name} must be {list(sides)}, got {given}")


def _layer_sides(shape: DecoderShape) -> Mapping[str, tuple[int, ...]]:
    hidden, wide = shape.hidden_size, shape.intermediate_size
    queries, keys = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    biases = {"query_bias": (queries,), "key_bias": (keys,), "value_bias": (keys,)}
    return (biases if shape.qkv_bias else {}) | {
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
