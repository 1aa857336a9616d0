"""The mixture of experts that takes the place of a decoder's MLP, as ``config.json`` tells it."""

from dataclasses import dataclass

from lapidist.models.config_fields import ConfigFields

_COUNTS = ("num_local_experts", "num_experts")
_INNER_SIZES = ("moe_intermediate_size", "intermediate_size")


@dataclass(frozen=True)
class ExpertConfig:
    """Every token goes to ``top_k`` of ``count`` gated MLPs of inner size ``inner``."""

    count: int
    top_k: int
    inner: int


def read_experts(fields: ConfigFields) -> ExpertConfig:
    """Of a family that has experts in every layer.

    Raises
    ------
    CheckpointError : a field is missing or wrong, or some layers have none.
    """
    count = fields.integer(_first(fields, _COUNTS))
    top_k = fields.integer("num_experts_per_tok")
    if top_k > count:
        raise fields.error("num_experts_per_tok", f"is {top_k}, more than the {count} experts")
    if fields.integer("decoder_sparse_step", 1) != 1 or fields.has_items("mlp_only_layers"):
        raise fields.error(
            "decoder_sparse_step", "or mlp_only_layers leaves layers without experts, which is not supported"
        )
    return ExpertConfig(count, top_k, fields.integer(_first(fields, _INNER_SIZES)))


def _first(fields: ConfigFields, names: tuple[str, ...]) -> str:
    return next((name for name in names if fields.has(name)), names[-1])
