"""Names and shapes of the tensors that a Hugging Face checkpoint of a supported family holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Literal


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a checkpoint; a ``weight`` is ``[output channels, input channels]``."""

    name: str
    shape: tuple[int, ...]
    kind: Literal["weight", "bias", "norm"]

    @property
    def elements(self) -> int:
        return prod(self.shape)


def checkpoint_tensors(config: dict[str, Any]) -> Iterator[TensorSpec]:
    """The tensors of the checkpoint that ``config``, a ``config.json``, describes, layer by layer."""
    vocabulary, hidden = config["vocab_size"], config["hidden_size"]
    yield TensorSpec("model.embed_tokens.weight", (vocabulary, hidden), "weight")
    for layer in range(config["num_hidden_layers"]):
        for spec in _layer(config):
            yield TensorSpec(f"model.layers.{layer}.{spec.name}", spec.shape, spec.kind)
    yield TensorSpec("model.norm.weight", (hidden,), "norm")
    # Gemma-2's config leaves the key out and ties.
    if not config.get("tie_word_embeddings", config["model_type"] == "gemma2"):
        yield TensorSpec("lm_head.weight", (vocabulary, hidden), "weight")


def _layer(config: dict[str, Any]) -> Iterator[TensorSpec]:
    family, hidden, intermediate = config["model_type"], config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    query, key = heads * head_dim, kv_heads * head_dim
    o_bias = config.get("attention_bias", False)
    qkv_bias = o_bias or family == "qwen2"
    mlp_bias = config.get("mlp_bias", False)
    if family == "phi3":
        yield from _linear("self_attn.qkv_proj", query + 2 * key, hidden, qkv_bias)
    else:
        yield from _linear("self_attn.q_proj", query, hidden, qkv_bias)
        yield from _linear("self_attn.k_proj", key, hidden, qkv_bias)
        yield from _linear("self_attn.v_proj", key, hidden, qkv_bias)
    yield from _linear("self_attn.o_proj", hidden, query, o_bias)
    if family == "qwen3":
        yield TensorSpec("self_attn.q_norm.weight", (head_dim,), "norm")
        yield TensorSpec("self_attn.k_norm.weight", (head_dim,), "norm")
    if family == "phi3":
        yield from _linear("mlp.gate_up_proj", 2 * intermediate, hidden, mlp_bias)
    else:
        yield from _linear("mlp.gate_proj", intermediate, hidden, mlp_bias)
        yield from _linear("mlp.up_proj", intermediate, hidden, mlp_bias)
    yield from _linear("mlp.down_proj", hidden, intermediate, mlp_bias)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if family == "gemma2":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for norm in norms:
        yield TensorSpec(f"{norm}.weight", (hidden,), "norm")


def _linear(name: str, outputs: int, inputs: int, bias: bool) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{name}.weight", (outputs, inputs), "weight")
    if bias:
        yield TensorSpec(f"{name}.bias", (outputs,), "bias")
