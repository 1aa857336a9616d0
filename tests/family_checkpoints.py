"""Small random checkpoints of every family, made by ``transformers``, whose logits are far from constant."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

SHAPE: dict[str, Any] = {
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
WINDOW = 11
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [1.0, 2.0, 3.5, 6.0],
}


@dataclass(frozen=True)
class Variant:
    """A family with options: the prefix of its classes in ``transformers`` and fields of its configuration."""

    family: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def eager(self) -> bool:
        """Only ``transformers``' eager attention caps scores."""
        return self.family == "Gemma2"


def rope(**parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 10_000.0, **parameters}}


VARIANTS = {
    "llama": Variant("Llama"),
    "llama-biases-tied": Variant(
        "Llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 16}
    ),
    "llama-linear": Variant("Llama", rope(rope_type="linear", factor=2.5)),
    "llama-dynamic": Variant(
        "Llama", rope(rope_type="dynamic", factor=2.0) | {"max_position_embeddings": 24}
    ),
    "llama3": Variant(
        "Llama",
        rope(
            rope_type="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "llama-yarn": Variant("Llama", rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)),
    "llama-yarn-untruncated": Variant(
        "Llama",
        rope(
            rope_type="yarn",
            factor=4.0,
            original_max_position_embeddings=16,
            truncate=False,
            beta_fast=4.0,
            beta_slow=0.5,
            mscale=0.7,
            mscale_all_dim=1.2,
        ),
    ),
    "llama-yarn-attention-factor": Variant(
        "Llama", rope(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, attention_factor=1.3)
    ),
    "llama-longrope": Variant("Llama", rope(**LONGROPE, factor=4.0, original_max_position_embeddings=20)),
    "mistral": Variant("Mistral", {"sliding_window": WINDOW, "head_dim": 12}),
    "mistral-full": Variant("Mistral", {"sliding_window": None}),
    "qwen2": Variant("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": Variant(
        "Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
    ),
    "qwen2-yarn": Variant("Qwen2", rope(rope_type="yarn", factor=2.0, original_max_position_embeddings=32)),
    "qwen3": Variant("Qwen3", {"head_dim": 16}),
    "qwen3-window": Variant(
        "Qwen3",
        {
            "head_dim": 16,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    "phi3": Variant("Phi3", {"sliding_window": WINDOW}),
    "phi3-longrope": Variant("Phi3", rope(**LONGROPE) | {"original_max_position_embeddings": 20}),
    "phi3-partial": Variant(
        "Phi3",
        rope(**LONGROPE | {"short_factor": [1.0, 1.2], "long_factor": [2.0, 4.0]}, partial_rotary_factor=0.5)
        | {"original_max_position_embeddings": 20, "tie_word_embeddings": True},
    ),
    "gemma2": Variant("Gemma2", {"head_dim": 16, "sliding_window": WINDOW, "query_pre_attn_scalar": 20}),
    "gemma2-biases": Variant(
        "Gemma2",
        {
            "head_dim": 16,
            "attention_bias": True,
            "tie_word_embeddings": False,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 8.0,
        },
    ),
}


def build(variant: Variant, seed: int) -> Any:
    """A ``transformers`` model in float32; norms and biases are random too, and logits have a spread of about one."""
    options = SHAPE | variant.options
    if "short_factor" in options.get("rope_parameters", {}):
        # As many factors as rotated pairs of channels.
        options |= {"num_attention_heads": 6, "hidden_size": 48}
    config = getattr(transformers, f"{variant.family}Config")(**options)
    config._attn_implementation = "eager" if variant.eager else "sdpa"
    model = getattr(transformers, f"{variant.family}ForCausalLM")(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        spread = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            parameter.copy_(spread * 0.3 + (0.0 if variant.family == "Gemma2" else 1.0))
        elif name.endswith("bias"):
            parameter.copy_(spread * 0.5)
        else:
            parameter.copy_(spread * 1.3 * parameter.shape[-1] ** -0.5)
    return model


def save(model: Any, directory: Path, **options: Any) -> Path:
    model.save_pretrained(directory, **options)
    return directory
