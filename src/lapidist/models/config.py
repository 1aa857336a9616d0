"""What a decoder computes, read from a checkpoint's ``config.json``. Families differ in data only."""

from dataclasses import dataclass
from pathlib import Path

import torch

from lapidist.models.config_fields import ConfigFields
from lapidist.models.expert_config import ExpertConfig, read_experts
from lapidist.models.families import EXPERT_FAMILIES, FAMILIES, Family
from lapidist.models.filter_config import FilterDefaults, read_filter
from lapidist.models.latent_config import LatentConfig, read_latent
from lapidist.models.quantization_config import QuantizationConfig, foreign_method, read_quantization
from lapidist.models.rope_config import RopeConfig
from lapidist.models.rope_fields import read_rope
from lapidist.models.shapes import shape_config
from lapidist.models.softmax_config import SoftmaxConfig, read_softmax

CONFIG_FILE = "config.json"

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_pytorch_tanh",
}
_LAYER_TYPES = {"full_attention": False, "sliding_attention": True}
_MAX_LAYERS = 10_000
_MAX_HEAD_DIM = 1 << 16


@dataclass(frozen=True)
class ModelConfig:
    """A decoder's shape and the options in which the families differ.

    Attributes
    ----------
    architecture : class name in the checkpoint, such as ``LlamaForCausalLM``.
    qkv_bias, o_bias, mlp_bias : which projections have a bias.
    qk_norm : queries and keys are normalized per head (Qwen3).
    sliding_windows : per layer, how many tokens a query sees, itself included; None for all.
    attention_scale : factor on attention scores.
    attention_softcap, final_softcap : caps of attention scores and logits (Gemma-2), None for none.
    embedding_scale : factor on embeddings.
    norm_offset : added to the weights of norms: 1 for Gemma, else 0.
    sandwich_norms : attention and MLP have a norm behind them too (Gemma-2).
    attention_softmax : what ``lapidist calibrate-attention`` wrote, None if it never ran.
    quantization : formats of a quantized checkpoint, None for floats.
    dtype : of the checkpoint; float32 if it does not say.
    prompt_filter : what ``lapidist calibrate-filter`` wrote, None if it never ran.
    experts : the mixture of experts that every layer has for an MLP; None in everything that the engine runs.
    joint_qk_norm : queries and keys are normalized over all heads at once (MiniMax-M2); also never run.
    latent : latent attention, whose sizes take the place of ``num_kv_heads`` and ``head_dim``; also never run.
    foreign_quantization : method by which others quantized a checkpoint that is not run, such as ``fp8``.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position_embeddings: int
    hidden_act: str
    norm_eps: float
    tie_embeddings: bool
    qkv_bias: bool
    o_bias: bool
    mlp_bias: bool
    qk_norm: bool
    sliding_windows: tuple[int | None, ...]
    attention_scale: float
    attention_softcap: float | None
    final_softcap: float | None
    embedding_scale: float
    norm_offset: float
    sandwich_norms: bool
    attention_softmax: SoftmaxConfig | None
    quantization: QuantizationConfig | None
    rope: RopeConfig
    dtype: torch.dtype
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    prompt_filter: FilterDefaults | None = None
    experts: ExpertConfig | None = None
    latent: LatentConfig | None = None
    joint_qk_norm: bool = False
    foreign_quantization: str | None = None

    @classmethod
    def from_directory(cls, path: str | Path, *, to_run: bool = True) -> "ModelConfig":
        """Read ``config.json``, in the style of transformers 4 or 5.

        Without ``to_run`` it may be what can be forecast only: a mixture of experts, or quantized by others.

        Raises
        ------
        CheckpointError : the file is missing or broken, the architecture is not supported, a field is wrong.
        """
        return cls.from_fields(ConfigFields.read(Path(path) / CONFIG_FILE), to_run=to_run)

    @classmethod
    def of_shape(cls, name: str, *, to_run: bool = True) -> "ModelConfig":
        """Of a public model in ``models.shapes``; raises ValueError for an unknown name."""
        return cls.from_fields(ConfigFields(Path(name), shape_config(name, to_run=to_run)), to_run=to_run)

    @classmethod
    def from_fields(cls, fields: ConfigFields, *, to_run: bool = True) -> "ModelConfig":
        """From the contents of a ``config.json``; raises CheckpointError as ``from_directory`` does."""
        architecture, family = _family(fields, to_run)
        _reject_what_we_do_not_compute(fields)
        hidden_size = fields.integer("hidden_size")
        num_layers = fields.integer("num_hidden_layers", maximum=_MAX_LAYERS)
        num_heads = fields.integer("num_attention_heads")
        num_kv_heads = _num_kv_heads(fields, num_heads, family)
        head_dim = _head_dim(fields, hidden_size, num_heads, family)
        context = fields.integer("max_position_embeddings")
        bias = family.attention_bias_option and fields.boolean("attention_bias")
        query_scalar = fields.positive("query_pre_attn_scalar", 256.0) if family.is_gemma else head_dim
        foreign = None if to_run else foreign_method(fields)
        activation_key = "hidden_activation" if family.is_gemma else "hidden_act"
        return cls(
            architecture=architecture,
            vocab_size=fields.integer("vocab_size"),
            hidden_size=hidden_size,
            intermediate_size=fields.integer("intermediate_size"),
            num_layers=num_layers,
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            max_position_embeddings=context,
            hidden_act=fields.choice(activation_key, _ACTIVATIONS, family.activation),
            norm_eps=fields.positive("rms_norm_eps", family.norm_eps),
            tie_embeddings=fields.boolean("tie_word_embeddings", family.tie_embeddings),
            qkv_bias=family.qkv_bias or bias,
            o_bias=bias,
            mlp_bias=family.mlp_bias_option and fields.boolean("mlp_bias"),
            qk_norm=family.qk_norm,
            sliding_windows=_sliding_windows(fields, num_layers, family),
            attention_scale=query_scalar**-0.5,
            attention_softcap=_softcap(fields, "attn_logit_softcapping", 50.0, family),
            final_softcap=_softcap(fields, "final_logit_softcapping", 30.0, family),
            embedding_scale=hidden_size**0.5 if family.is_gemma else 1.0,
            norm_offset=1.0 if family.is_gemma else 0.0,
            sandwich_norms=family.is_gemma,
            attention_softmax=read_softmax(fields, num_layers, num_heads),
            quantization=read_quantization(fields) if foreign is None else None,
            rope=read_rope(fields, head_dim, context, family),
            dtype=_dtype(fields),
            bos_token_id=fields.optional_integer("bos_token_id", minimum=0),
            eos_token_ids=fields.integers("eos_token_id"),
            prompt_filter=read_filter(fields, num_layers),
            experts=read_experts(fields, num_layers) if family.has_experts else None,
            latent=read_latent(fields) if family.has_latents else None,
            joint_qk_norm=family.joint_qk_norm,
            foreign_quantization=foreign,
        )


def _family(fields: ConfigFields, to_run: bool) -> tuple[str, Family]:
    names = fields.texts("architectures")
    known = FAMILIES if to_run else FAMILIES | EXPERT_FAMILIES
    for name in names:
        if name in known:
            return name, known[name]
        if name in EXPERT_FAMILIES:
            raise fields.error(
                "architectures",
                f"is {name}, a mixture of experts, which lapidist plan forecasts but nothing runs",
            )
    raise fields.error(
        "architectures", f"is {names}, which is not supported; supported are {', '.join(known)}"
    )


def _reject_what_we_do_not_compute(fields: ConfigFields) -> None:
    if fields.boolean("use_bidirectional_attention"):
        raise fields.error("use_bidirectional_attention", "is true: only causal decoders are supported")


def _num_kv_heads(fields: ConfigFields, num_heads: int, family: Family) -> int:
    num_kv_heads = fields.integer("num_key_value_heads", family.num_kv_heads or num_heads)
    if num_heads % num_kv_heads:
        raise fields.error(
            "num_key_value_heads", f"is {num_kv_heads}, which does not divide {num_heads} heads"
        )
    return num_kv_heads


def _head_dim(fields: ConfigFields, hidden_size: int, num_heads: int, family: Family) -> int:
    default = family.head_dim or hidden_size // num_heads
    if not fields.has("head_dim") and family.head_dim is None and hidden_size % num_heads:
        raise fields.error(
            "num_attention_heads", f"is {num_heads}, which does not divide hidden_size {hidden_size}"
        )
    head_dim = fields.integer("head_dim", default, maximum=_MAX_HEAD_DIM)
    if head_dim % 2:
        raise fields.error("head_dim", f"is {head_dim}: rotary position embedding needs an even number")
    return head_dim


def _sliding_windows(fields: ConfigFields, num_layers: int, family: Family) -> tuple[int | None, ...]:
    window = fields.optional_integer("sliding_window", family.sliding_window)
    if family.window_layers == "all":
        return (window,) * num_layers
    if family.window_layers == "none":
        return (None,) * num_layers
    if family.window_layers == "switched" and not fields.boolean("use_sliding_window"):
        window = None
    if fields.has("layer_types"):
        kinds = fields.texts("layer_types")
        if len(kinds) != num_layers or not set(kinds) <= set(_LAYER_TYPES):
            raise fields.error(
                "layer_types", f"must list {num_layers} of {', '.join(_LAYER_TYPES)}, one for each layer"
            )
        slides = [_LAYER_TYPES[kind] for kind in kinds]
    elif family.window_layers == "switched":
        first = fields.integer("max_window_layers", 28, minimum=0)
        slides = [window is not None and layer >= first for layer in range(num_layers)]
    else:
        slides = [layer % 2 == 0 for layer in range(num_layers)]
    if any(slides) and window is None:
        raise fields.error(
            "sliding_window", "is missing or switched off, but layer_types has sliding attention"
        )
    return tuple(window if sliding else None for sliding in slides)


def _softcap(fields: ConfigFields, key: str, default: float, family: Family) -> float | None:
    return fields.optional_positive(key, default) if family.is_gemma else None


def _dtype(fields: ConfigFields) -> torch.dtype:
    key = "dtype" if fields.has("dtype") else "torch_dtype"
    return fields.choice(key, DTYPES | {f"torch.{name}": dtype for name, dtype in DTYPES.items()}, "float32")
