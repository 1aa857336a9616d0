"""Lowered FLOPs equal, to the last one, what PyTorch counts on forward passes of ``transformers``' models."""

from dataclasses import dataclass

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.operators import GEMM, Attention, total_flops

transformers = pytest.importorskip("transformers")

SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}
WINDOW = 7
FAMILIES = {
    "llama": ("Llama", {}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "phi3": ("Phi3", {}),
    "gemma2": ("Gemma2", {"head_dim": 16, "sliding_window": WINDOW}),
}


@dataclass(frozen=True)
class Shape:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    sliding_windows: tuple[int | None, ...]
    hidden_act: str = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    joint_qk_norm: bool = False
    sandwich_norms: bool = False
    embedding_scale: float = 1.0
    final_softcap: float | None = None
    experts: None = None
    latent: None = None


def build(family: str) -> tuple[torch.nn.Module, Shape]:
    name, extras = FAMILIES[family]
    config = getattr(transformers, f"{name}Config")(**SIZES, **extras)
    # Gemma-2's capped scores have no fused kernel; its eager path is two matrix products of the same count.
    config._attn_implementation = "eager" if family == "gemma2" else "sdpa"
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    if family == "mistral":
        types = ["sliding_attention"] * config.num_hidden_layers
    shape = Shape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        sliding_windows=tuple(WINDOW if kind == "sliding_attention" else None for kind in types),
    )
    return model, shape


def counted_flops(model: torch.nn.Module, **inputs: object) -> int:
    """What PyTorch counts for one forward pass, without the angle table of the rotary embedding.

    ``transformers`` computes that table (positions times frequencies) as a matrix product in its own module.
    """
    fused_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    formulas = {fused_on_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        model(**inputs)
    rotary = [
        sum(counts.values()) for name, counts in counter.get_flop_counts().items() if "rotary_emb" in name
    ]
    return counter.get_total_flops() - sum(rotary)


def lowered_flops(shape: Shape, step: Step) -> int:
    operators = lower(shape, Recipe.named("fp32"), step)
    return total_flops([operator for operator in operators if isinstance(operator, GEMM | Attention)])


@pytest.mark.parametrize("family", FAMILIES)
def test_prefill_and_decode_with_a_cache(family: str) -> None:
    model, shape = build(family)
    cache = transformers.DynamicCache(config=model.config)
    batch, kv_length = int(torch.randint(1, 4, ())), 0
    # A prompt past the window, single tokens, and a chunk on top of a full window.
    for query_length in (int(torch.randint(1, 20, ())), 1, 1, int(torch.randint(2, 9, ())), 1):
        kv_length += query_length
        tokens = torch.randint(1, 97, (batch, query_length))
        counted = counted_flops(
            model, input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        step = Step((SequenceStep(query_length, kv_length),) * batch, logit_rows=batch)
        assert lowered_flops(shape, step) == counted, (family, batch, query_length, kv_length)


def test_a_step_costs_what_its_sequences_cost_apart() -> None:
    """Sequences of different lengths share the projections; attention and head add up."""
    model, shape = build("qwen2")
    counted = 0
    for length in (3, 11, 6):
        counted += counted_flops(model, input_ids=torch.randint(1, 97, (1, length)), logits_to_keep=1)
    step = Step(tuple(SequenceStep(length, length) for length in (3, 11, 6)), logit_rows=3)
    assert lowered_flops(shape, step) == counted
