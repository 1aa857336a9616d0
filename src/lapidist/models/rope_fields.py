"""Reads rotary position embedding from ``config.json``, in the style of transformers 4 or 5."""

import math
from collections.abc import Callable

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
    theta = section.positive("rope_theta", fields.positive("rope_theta", 10_000.0))
    kind = section.text("rope_type", section.text("type", "default"))
    if family.only_longrope and kind in ("su", "yarn"):
        kind = "longrope"  # what early Phi-3 configurations called it
    known = ("default", "longrope") if family.only_longrope else tuple(_READERS)
    if kind not in known:
        raise section.error(
            "rope_type", f"is {kind!r}, which is not supported; supported are {', '.join(known)}"
        )
    if theta <= 1.0:
        raise section.error("rope_theta", f"must be above 1, got {theta}")
    original = section.integer("original_max_position_embeddings", context)
    original = fields.integer("original_max_position_embeddings", family.original_context or original)
    rotary_dim = _rotary_dim(fields, section, head_dim, family)
    return _READERS[kind](section, theta, rotary_dim, context, original)


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


def _default(section: ConfigFields, theta: float, rotary_dim: int, context: int, original: int) -> RopeConfig:
    return RopeConfig("default", theta, rotary_dim)


def _linear(section: ConfigFields, theta: float, rotary_dim: int, context: int, original: int) -> RopeConfig:
    return RopeConfig("linear", theta, rotary_dim, factor=section.positive("factor"))


def _dynamic(section: ConfigFields, theta: float, rotary_dim: int, context: int, original: int) -> RopeConfig:
    if rotary_dim == 2:
        raise section.error("rope_type", "is 'dynamic', which needs more than 2 rotated channels per head")
    # The scaling starts where the model's context ends, whatever the original context was.
    return RopeConfig(
        "dynamic", theta, rotary_dim, factor=section.positive("factor"), original_context=context
    )


def _llama3(section: ConfigFields, theta: float, rotary_dim: int, context: int, original: int) -> RopeConfig:
    low, high = section.positive("low_freq_factor"), section.positive("high_freq_factor")
    if low >= high:
        raise section.error("high_freq_factor", f"is {high}: it must be above low_freq_factor, {low}")
    return RopeConfig(
        "llama3",
        theta,
        rotary_dim,
        factor=section.positive("factor"),
        original_context=original,
        low_freq_factor=low,
        high_freq_factor=high,
    )


def _yarn(section: ConfigFields, theta: float, rotary_dim: int, context: int, original: int) -> RopeConfig:
    factor = section.positive("factor", context / original)
    attention_factor = section.optional_positive("attention_factor")
    if attention_factor is None:
        if section.has("mscale") and section.has("mscale_all_dim"):
            scale, scale_all = section.positive("mscale"), section.positive("mscale_all_dim")
            attention_factor = _yarn_magnitude(factor, scale) / _yarn_magnitude(factor, scale_all)
        else:
            attention_factor = _yarn_magnitude(factor, 1.0)
    return RopeConfig(
        "yarn",
        theta,
        rotary_dim,
        factor=factor,
        original_context=original,
        attention_factor=attention_factor,
        beta_fast=section.positive("beta_fast", 32.0),
        beta_slow=section.positive("beta_slow", 1.0),
        truncate=section.boolean("truncate", True),
    )


def _yarn_magnitude(factor: float, scale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0


def _longrope(
    section: ConfigFields, theta: float, rotary_dim: int, context: int, original: int
) -> RopeConfig:
    factor = section.positive("factor", context / original)
    attention_factor = section.optional_positive("attention_factor")
    if attention_factor is None:
        if factor > 1 and original == 1:
            raise section.error("original_max_position_embeddings", "must be above 1 for longrope")
        stretch = math.log(factor) / math.log(original) if factor > 1 else 0.0
        attention_factor = math.sqrt(1 + stretch)
    return RopeConfig(
        "longrope",
        theta,
        rotary_dim,
        original_context=original,
        attention_factor=attention_factor,
        short_factors=section.positives("short_factor", rotary_dim // 2),
        long_factors=section.positives("long_factor", rotary_dim // 2),
    )


_READERS: dict[str, Callable[[ConfigFields, float, int, int, int], RopeConfig]] = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}
