"""The families of decoders that we compute, as the data in which they differ."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Family:
    """What an architecture's name says beyond its ``config.json``, and the defaults of fields that may be absent.

    The defaults are those of the family's class in ``transformers``, which leaves them out of the file.

    Attributes
    ----------
    qkv_bias : query, key and value projections always have a bias.
    attention_bias_option, mlp_bias_option : the field ``attention_bias`` or ``mlp_bias`` counts.
    qk_norm : queries and keys are normalized per head.
    joint_qk_norm : they are, but over all heads at once.
    is_gemma : Gemma-2's norms, soft-capping, embedding scale and attention scale.
    fused_weights : the checkpoint stores one ``qkv_proj`` and one ``gate_up_proj``.
    window_layers : which layers have a sliding window: none, all, those that ``use_sliding_window`` with
        ``max_window_layers`` or ``layer_types`` says, or every other one unless ``layer_types`` says otherwise.
    partial_rotary : the field ``partial_rotary_factor`` counts.
    original_context : default of ``original_max_position_embeddings``; None is the model's context.
    only_longrope : there is no RoPE scaling but longrope, which has older names.
    has_experts : the MLP is a mixture of experts.
    has_latents : keys and values come from latent vectors.
    """

    activation: str = "silu"
    norm_eps: float = 1e-6
    tie_embeddings: bool = False
    num_kv_heads: int | None = None
    head_dim: int | None = None
    qkv_bias: bool = False
    attention_bias_option: bool = False
    mlp_bias_option: bool = False
    qk_norm: bool = False
    joint_qk_norm: bool = False
    is_gemma: bool = False
    fused_weights: bool = False
    sliding_window: int | None = None
    window_layers: Literal["none", "all", "switched", "alternating"] = "none"
    partial_rotary: bool = False
    original_context: int | None = None
    only_longrope: bool = False
    has_experts: bool = False
    has_latents: bool = False


FAMILIES = {
    "LlamaForCausalLM": Family(attention_bias_option=True, mlp_bias_option=True),
    "MistralForCausalLM": Family(num_kv_heads=8, sliding_window=4096, window_layers="all"),
    "Qwen2ForCausalLM": Family(num_kv_heads=32, qkv_bias=True, sliding_window=4096, window_layers="switched"),
    "Qwen3ForCausalLM": Family(
        num_kv_heads=32,
        head_dim=128,
        attention_bias_option=True,
        qk_norm=True,
        sliding_window=4096,
        window_layers="switched",
    ),
    "Phi3ForCausalLM": Family(
        norm_eps=1e-5,
        fused_weights=True,
        window_layers="all",
        partial_rotary=True,
        original_context=4096,
        only_longrope=True,
    ),
    "Gemma2ForCausalLM": Family(
        activation="gelu_pytorch_tanh",
        tie_embeddings=True,
        num_kv_heads=4,
        head_dim=256,
        attention_bias_option=True,
        is_gemma=True,
        sliding_window=4096,
        window_layers="alternating",
    ),
}

# Only forecast: the engine has no experts.
EXPERT_FAMILIES = {
    "MixtralForCausalLM": Family(
        norm_eps=1e-5,
        num_kv_heads=8,
        window_layers="all",
        has_experts=True,
    ),
    "Qwen3MoeForCausalLM": Family(
        num_kv_heads=4,
        attention_bias_option=True,
        qk_norm=True,
        sliding_window=4096,
        window_layers="switched",
        has_experts=True,
    ),
    "GptOssForCausalLM": Family(
        norm_eps=1e-5,
        num_kv_heads=8,
        head_dim=64,
        attention_bias_option=True,
        sliding_window=128,
        window_layers="alternating",
        has_experts=True,
    ),
    "MiniMaxM2ForCausalLM": Family(
        head_dim=128,
        qk_norm=True,
        joint_qk_norm=True,
        partial_rotary=True,
        has_experts=True,
    ),
    "DeepseekV3ForCausalLM": Family(has_experts=True, has_latents=True),
}
