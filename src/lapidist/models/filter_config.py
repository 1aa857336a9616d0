"""What ``lapidist calibrate-filter`` found for a checkpoint: the section ``prompt_filter`` of its ``config.json``."""

from dataclasses import dataclass
from typing import Any

from lapidist.models.config_fields import ConfigFields

SECTION = "prompt_filter"


@dataclass(frozen=True)
class FilterDefaults:
    """Defaults of prompt filters that choose tokens in one layer.

    Attributes
    ----------
    layer : whose attention finds what matters, counted from 0.
    keep : share of the prompt's tokens that is enough.
    """

    layer: int
    keep: float


def read_filter(fields: ConfigFields, num_layers: int) -> FilterDefaults | None:
    """``{"layer": ..., "keep": ...}``; None where it is absent.

    Raises
    ------
    CheckpointError : a field is wrong.
    """
    if not fields.has(SECTION):
        return None
    section = fields.section(SECTION)
    keep = section.positive("keep")
    if keep > 1:
        raise section.error("keep", f"is {keep}, and a share of the prompt is 1 at the most")
    return FilterDefaults(section.integer("layer", minimum=0, maximum=num_layers - 1), keep)


def filter_section(defaults: FilterDefaults) -> dict[str, Any]:
    """What ``read_filter`` reads ``defaults`` from."""
    return {"layer": defaults.layer, "keep": defaults.keep}
