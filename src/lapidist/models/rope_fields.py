"""Reads rotary position embedding from ``config.json``, in the style of transformers 4 or 5."""

import math
from collections.abc import Callable
from dataclasses import replace

from lapidist.models.config_fields import ConfigFields
from lapidist.models.families import Family
from lapidist.models.rope_config import RopeConfig


def read_rope(fields: ConfigFields, head_dim: int, context: int, family: Family) -> RopeConfig:
    """``rope_theta`` with ``rope_scaling`` (version 4) or ``rope_parameters`` (version 5).

    Raises
    ------
    CheckpointError : a parameter is missing or wrong, or the scaling is not supported.
    """
    key = "rope_scaling" if fields.has("rope_scaling") else "rope_parameters"
    section = fields.section(key)
    for layer_type in ("full_attention", "sliding_attention"):
        if section.has(layer_type):
            raise section.error(layer_type, "is not supported: all layers must rotate alike")
    kind = section.text("rope_type", section.text("type", "default"))
    if family.only_longrope and kind in ("su", "yarn"):
        kind = "longrope"  # what early Phi-3 configurations called it
    known = ("default", "longrope") if family.only_longrope else tuple(_READERS)
    if kind not in known:
        raise section.error(
            "rope_type", f"is {kind!r}, which is not supported; supported are {', '.join(known)}"
        )
    theta = section.positive("rope_theta", fields.positive("rope_theta", 10_000.0))
    if theta <= 1.0:
        raise section.error("rope_theta", f"must be above 1, got {theta}")
    original = section.integer("original_max_position_embeddings", context)
    original = fields.integer("original_max_position_embeddings", family.original_context or original)
    plain = RopeConfig("default", theta, _rotary_dim(fields, section, head_dim, family), original)
    return _READERS[kind](plain, section, context)


def _rotary_dim(fields: ConfigFields, section: ConfigFields, head_dim: int, family: Family) -> int:
    share = section.positive("partial_rotary_factor", fields.positive("partial_rotary_factor", 1.0))
    rotary_dim = int(head_dim * share)
    if share > 1.0 or rotary_dim < 2 or rotary_dim % 2:
        raise section.error(
            "partial_rotary_factor",
            f"is {share}: it must rotate an even number of the {head_dim} channels of a head",
        )
    if share != 1.0 and not family.partial_rotary:
        raise section.error("partial_rotary_factor", f"is {share}: this architecture rotates whole heads")
    return rotary_dim


def _default(plain: RopeConfig, section: ConfigFields, context: int) -> RopeConfig:
    return plain


def _linear(plain: RopeConfig, section: ConfigFields, context: int) -> RopeConfig:
    return replace(plain, kind="linear", factor=section.positive("factor"))


def _dynamic(plain: RopeConfig, section: ConfigFields, context: int) -> RopeConfig:
    if plain.rotary_dim == 2:
        raise section.error("rope_type", "is 'dynamic', which needs more than 2 rotated channels per head")
    # The scaling starts where the model's context ends, whatever the original context was.
    return replace(plain, kind="dynamic", factor=section.positive("factor"), original_context=context)


def _llama3(plain: RopeConfig, section: ConfigFields, context: int) -> RopeConfig:
    low, high = section.positive("low_freq_factor"), section.positive("high_freq_factor")
    if low >= high:
        raise section.error("high_freq_factor", f"is {high}: it must be above low_freq_factor, {low}")
    factor = section.positive("factor")
    return replace(plain, kind="llama3", factor=factor, low_freq_factor=low, high_freq_factor=high)


def _yarn(plain: RopeConfig, section: ConfigFields, context: int) -> RopeConfig:
    factor = section.positive("factor", context / plain.original_context)
    attention_factor = section.optional_positive("attention_factor")
    if attention_factor is None:
        if section.has("mscale") and section.has("mscale_all_dim"):
            scale, scale_all = section.positive("mscale"), section.positive("mscale_all_dim")
            attention_factor = _yarn_magnitude(factor, scale) / _yarn_magnitude(factor, scale_all)
        else:
            attention_factor = _yarn_magnitude(factor, 1.0)
    return replace(
        plain,
        kind="yarn",
        factor=factor,
        attention_factor=attention_factor,
        beta_fast=section.positive("beta_fast", 32.0),
        beta_slow=section.positive("beta_slow", 1.0),
        truncate=section.boolean("truncate", True),
    )


def _yarn_magnitude(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _longrope(plain: RopeConfig, section: ConfigFields, context: int) -> RopeConfig:
    original = plain.original_context
    factor = section.positive("factor", context / original)
    attention_factor = section.optional_positive("attention_factor")
    if attention_factor is None:
        if factor > 1 and original == 1:
            raise section.error("original_max_position_embeddings", "must be above 1 for longrope")
        stretch = math.log(factor) / math.log(original) if factor > 1 else 0.0
        attention_factor = math.sqrt(1 + stretch)
    return replace(
        plain,
        kind="longrope",
        attention_factor=attention_factor,
        short_factors=section.positives("short_factor", plain.rotary_dim // 2),
        long_factors=section.positives("long_factor", plain.rotary_dim // 2),
    )


# How each kind of scaling completes a plain embedding, given its section and the model's context.
_READERS: dict[str, Callable[[RopeConfig, ConfigFields, int], RopeConfig]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
