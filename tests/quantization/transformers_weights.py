"""Between models of ``transformers`` and the weights that passes work on, for tests that logits stay what they were."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lapidist.quantization.block import BlockShape, BlockWeights, EndWeights
from tests.family_checkpoints import Variant, build, rope

# hidden_size has a Hadamard matrix: 96 is 8 * 12.
_SHAPE = {"hidden_size": 96, "num_hidden_layers": 2}
FAMILIES = {
    "llama-tied": Variant("Llama", _SHAPE | {"head_dim": 16, "tie_word_embeddings": True}),
    "llama-biases": Variant(
        "Llama",
        _SHAPE
        | {
            "num_attention_heads": 4,
            "hidden_size": 128,
            "head_dim": 64,
            "attention_bias": True,
            "mlp_bias": True,
        },
    ),
    "qwen2": Variant("Qwen2", _SHAPE),
    "qwen3": Variant("Qwen3", _SHAPE | {"head_dim": 32}),
    "phi3": Variant("Phi3", _SHAPE | rope(rope_type="default", partial_rotary_factor=0.5)),
    "gemma2": Variant("Gemma2", _SHAPE | {"head_dim": 16, "attn_logit_softcapping": None}),
}
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Of logits that ought to be unchanged, relative to the largest."""

_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}


def build_exact(family: str, seed: int, dtype: torch.dtype) -> Any:
    """A model whose every operator computes in ``dtype``; norms of ``transformers`` never do better than float32."""
    model = build(FAMILIES[family], seed).to(dtype)
    model.config._attn_implementation = "sdpa"
    offset = 1.0 if family == "gemma2" else 0.0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                norm = nn.RMSNorm(len(child.weight), model.config.rms_norm_eps, dtype=dtype)
                norm.weight = nn.Parameter(child.weight + offset, requires_grad=False)
                setattr(parent, name, norm)
    return model


def shape_of(model: Any) -> BlockShape:
    config = model.config
    attention = model.model.layers[0].self_attn
    return BlockShape(
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        rotary_dim=2 * len(model.model.rotary_emb.inv_freq),
    )


def read_weights(model: Any) -> tuple[EndWeights, list[BlockWeights]]:
    ends = EndWeights(
        embedding=model.model.embed_tokens.weight.clone(),
        final_norm=model.model.norm.weight.clone(),
        lm_head=model.lm_head.weight.clone(),
    )
    return ends, [_read_block(layer, shape_of(model)) for layer in model.model.layers]


def write_weights(model: Any, ends: EndWeights, blocks: Sequence[BlockWeights]) -> Any:
    """A copy of the model with other weights."""
    model = deepcopy(model)
    model.lm_head.weight = nn.Parameter(ends.lm_head, requires_grad=False)
    model.model.embed_tokens.weight = nn.Parameter(ends.embedding, requires_grad=False)
    model.model.norm.weight.copy_(ends.final_norm)
    for layer, block in zip(model.model.layers, blocks, strict=True):
        _write_block(layer, block)
    return model


def change_of_logits(model: Any, ends: EndWeights, blocks: Sequence[BlockWeights]) -> float:
    """How far the logits of random tokens are from the model's with these weights, relative to the largest."""
    tokens = torch.randint(1, model.config.vocab_size, (2, 24))
    before, after = model(tokens).logits, write_weights(model, ends, blocks)(tokens).logits
    assert before.std() > 0.1, "logits this flat would prove nothing"
    return float((after - before).abs().max() / before.abs().max())


def is_unchanged(model: Any, blocks: Sequence[BlockWeights], ends: EndWeights | None = None) -> bool:
    """Whether a model computes the same with these weights (its own ``ends`` where there are none)."""
    ends = read_weights(model)[0] if ends is None else ends
    return change_of_logits(model, ends, blocks) <= TOLERANCES[ends.embedding.dtype]


def _norm_names(layer: nn.Module) -> dict[str, str]:
    """Fields of ``BlockWeights`` and names in the layer."""
    if hasattr(layer, "pre_feedforward_layernorm"):
        return {
            "input_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "pre_mlp_norm": "pre_feedforward_layernorm",
            "post_mlp_norm": "post_feedforward_layernorm",
        }
    names = {"input_norm": "input_layernorm", "pre_mlp_norm": "post_attention_layernorm"}
    if hasattr(layer.self_attn, "q_norm"):
        names |= {"q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm"}
    return names


def _read_block(layer: Any, shape: BlockShape) -> BlockWeights:
    tensors: dict[str, Tensor] = {
        field: layer.get_submodule(name).weight.clone() for field, name in _norm_names(layer).items()
    }
    for parent in (layer.self_attn, layer.mlp):
        for name, linear in parent.named_children():
            if not isinstance(linear, nn.Linear):
                continue
            for kind, parameter in linear.named_parameters():
                parts = _FUSED.get(name, (name,))
                for part, rows in zip(parts, parameter.split(_rows(name, parameter, shape)), strict=True):
                    field = part.removesuffix("_proj") + ("_bias" if kind == "bias" else "")
                    tensors[field] = rows.clone()
    return BlockWeights(**tensors)


def _rows(name: str, parameter: Tensor, shape: BlockShape) -> list[int]:
    if name == "qkv_proj":
        return [heads * shape.head_dim for heads in (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)]
    return [len(parameter) // 2] * 2 if name == "gate_up_proj" else [len(parameter)]


def _write_block(layer: Any, block: BlockWeights) -> None:
    tensors = block.tensors()
    for field, name in _norm_names(layer).items():
        layer.get_submodule(name).weight.copy_(tensors[field])
    for parent in (layer.self_attn, layer.mlp):
        for name, linear in parent.named_children():
            if not isinstance(linear, nn.Linear):
                continue
            for kind, parameter in linear.named_parameters():
                suffix = "_bias" if kind == "bias" else ""
                parts = _FUSED.get(name, (name,))
                parameter.copy_(torch.cat([tensors[part.removesuffix("_proj") + suffix] for part in parts]))
