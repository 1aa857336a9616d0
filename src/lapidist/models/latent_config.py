"""Latent attention (DeepSeek-V2, arXiv 2405.04434), as ``config.json`` tells it."""

from dataclasses import dataclass

from lapidist.models.config_fields import ConfigFields


@dataclass(frozen=True)
class LatentConfig:
    """Keys and values of all heads come from one vector per token.

    Attributes
    ----------
    query_rank : of the vector that queries come from; 0 takes the hidden state.
    kv_rank : of the vector that keys and values come from, which the cache holds.
    rope_dim : of the rotated part of keys, one for all heads, which the cache holds too.
    nope_dim, value_dim : per head, of keys that are not rotated, and of values.
    """

    query_rank: int
    kv_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int


def read_latent(fields: ConfigFields) -> LatentConfig:
    """Of a family that has it; raises CheckpointError if a field is missing or wrong."""
    return LatentConfig(
        fields.optional_integer("q_lora_rank") or 0,
        fields.integer("kv_lora_rank"),
        fields.integer("qk_rope_head_dim"),
        fields.integer("qk_nope_head_dim"),
        fields.integer("v_head_dim"),
    )
