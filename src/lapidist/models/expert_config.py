"""The mixture of experts that takes the place of a decoder's MLP, as ``config.json`` tells it."""

from dataclasses import dataclass

from lapidist.models.config_fields import ConfigFields

_COUNTS = ("num_local_experts", "n_routed_experts", "num_experts")
_INNER_SIZES = ("moe_intermediate_size", "intermediate_size")


@dataclass(frozen=True)
class ExpertConfig:
    """Every token goes to ``top_k`` of ``count`` gated MLPs of inner size ``inner``.

    Attributes
    ----------
    shared_inner : inner size of an MLP that every token goes to besides; 0 for none.
    dense_layers : of the first layers, which have a plain MLP instead.
    """

    count: int
    top_k: int
    inner: int
    shared_inner: int = 0
    dense_layers: int = 0


def read_experts(fields: ConfigFields, num_layers: int) -> ExpertConfig:
    """Of a family that has experts in every layer but, where the file says so, some of the first.

    Raises
    ------
    CheckpointError : a field is missing or wrong, or later layers have none.
    """
    count = fields.integer(_first(fields, _COUNTS))
    top_k = fields.integer("num_experts_per_tok")
    if top_k > count:
        raise fields.error("num_experts_per_tok", f"is {top_k}, more than the {count} experts")
    for key in ("decoder_sparse_step", "moe_layer_freq"):
        if fields.integer(key, 1) != 1:
            raise fields.error(
                key, "leaves layers without experts between those with, which is not supported"
            )
    if fields.has_items("mlp_only_layers"):
        raise fields.error("mlp_only_layers", "names layers without experts, which is not supported")
    inner = fields.integer(_first(fields, _INNER_SIZES))
    shared = fields.integer("n_shared_experts", 0, minimum=0)
    dense_layers = fields.integer("first_k_dense_replace", 0, minimum=0, maximum=num_layers - 1)
    return ExpertConfig(count, top_k, inner, shared * inner, dense_layers)


def _first(fields: ConfigFields, names: tuple[str, ...]) -> str:
    return next((name for name in names if fields.has(name)), names[-1])
