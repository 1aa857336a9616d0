"""Names and shapes of the tensors that a Hugging Face checkpoint of a supported family holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

from lapidist.models.config import CONFIG_FILE, ModelConfig
from lapidist.models.config_fields import ConfigFields
from lapidist.models.families import FAMILIES
from lapidist.models.quantization_config import FLOAT, WeightFormat

EMBEDDING = "model.embed_tokens.weight"
LM_HEAD = "lm_head.weight"


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
    """The tensors of the checkpoint that ``config``, a ``config.json``, describes, layer by layer.

    Raises
    ------
    CheckpointError : the architecture is not supported, or a field is wrong.
    """
    return model_tensors(ModelConfig.from_fields(ConfigFields(Path(CONFIG_FILE), config)))


def model_tensors(config: ModelConfig) -> Iterator[TensorSpec]:
    """The tensors of a model, layer by layer, as they are while all of them are floats."""
    vocabulary = (config.vocab_size, config.hidden_size)
    yield TensorSpec(EMBEDDING, vocabulary, "weight")
    for layer in range(config.num_layers):
        for spec in _layer(config):
            yield TensorSpec(f"model.layers.{layer}.{spec.name}", spec.shape, spec.kind)
    yield TensorSpec("model.norm.weight", (config.hidden_size,), "norm")
    if not config.tie_embeddings:
        yield TensorSpec(LM_HEAD, vocabulary, "weight")


def stored_format(config: ModelConfig, tensor: TensorSpec) -> WeightFormat:
    """What a tensor is stored as; only matrices of linear layers are ever quantized."""
    if config.quantization is None or tensor.kind != "weight" or tensor.name == EMBEDDING:
        return FLOAT
    return config.quantization.lm_head if tensor.name == LM_HEAD else config.quantization.weights


def _layer(config: ModelConfig) -> Iterator[TensorSpec]:
    hidden, intermediate = config.hidden_size, config.intermediate_size
    query, key = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    fused = FAMILIES[config.architecture].fused_weights
    if fused:
        yield from _linear("self_attn.qkv_proj", query + 2 * key, hidden, config.qkv_bias)
    else:
        yield from _linear("self_attn.q_proj", query, hidden, config.qkv_bias)
        yield from _linear("self_attn.k_proj", key, hidden, config.qkv_bias)
        yield from _linear("self_attn.v_proj", key, hidden, config.qkv_bias)
    yield from _linear("self_attn.o_proj", hidden, query, config.o_bias)
    if config.qk_norm:
        yield TensorSpec("self_attn.q_norm.weight", (config.head_dim,), "norm")
        yield TensorSpec("self_attn.k_norm.weight", (config.head_dim,), "norm")
    if fused:
        yield from _linear("mlp.gate_up_proj", 2 * intermediate, hidden, config.mlp_bias)
    else:
        yield from _linear("mlp.gate_proj", intermediate, hidden, config.mlp_bias)
        yield from _linear("mlp.up_proj", intermediate, hidden, config.mlp_bias)
    yield from _linear("mlp.down_proj", hidden, intermediate, config.mlp_bias)
    norms = ["input_layernorm", "post_attention_layernorm"]
    if config.sandwich_norms:
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    for norm in norms:
        yield TensorSpec(f"{norm}.weight", (hidden,), "norm")


def _linear(name: str, outputs: int, inputs: int, bias: bool) -> Iterator[TensorSpec]:
    yield TensorSpec(f"{name}.weight", (outputs, inputs), "weight")
    if bias:
        yield TensorSpec(f"{name}.bias", (outputs,), "bias")
