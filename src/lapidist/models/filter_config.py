"""What ``lapidist calibrate-filter`` found for a checkpoint: the section ``prompt_filter`` of its ``config.json``."""

from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from lapidist.models.config_fields import ConfigFields

SECTION = "prompt_filter"


@dataclass(frozen=True)
class GemFilterPolicy:
    """How GemFilter scores and chooses tokens; the defaults are the published policy (arXiv 2409.17422).

    See ``engine.prompt_filters.GemFilter`` for the meaning of each.
    """

    pool: int = 5
    keep_first: int = 0
    keep_last: int = 0
    chunk: int = 1
    softmax: bool = False
    window: int = 1


@dataclass(frozen=True)
class AdaptivePolicy:
    """How the adaptive filter scores tokens, and when its choice is good enough.

    See ``engine.prompt_filters.Adaptive`` for the meaning of each.
    """

    least: int = 48
    mass: float = 0.7
    agreement: float = 0.6
    window: int = 4
    pool: int = 21
    keep_first: int = 1
    keep_last: int = 24


@dataclass(frozen=True)
class FilterDefaults:
    """Defaults of prompt filters that choose tokens in one layer.

    Attributes
    ----------
    layer : whose attention finds what matters, counted from 0.
    keep : share of the prompt's tokens that is enough.
    gemfilter, adaptive : policies that find it; None where nothing but layer and share was calibrated.
    """

    layer: int
    keep: float
    gemfilter: GemFilterPolicy | None = None
    adaptive: AdaptivePolicy | None = None


def read_filter(config: ConfigFields, num_layers: int) -> FilterDefaults | None:
    """``{"layer": ..., "keep": ..., "gemfilter": {...}, "adaptive": {...}}``, the policies if they are there; None
    without the section.

    Raises
    ------
    CheckpointError : a field is wrong.
    """
    if not config.has(SECTION):
        return None
    section = config.section(SECTION)
    keep = section.positive("keep")
    if keep > 1:
        raise section.error("keep", f"is {keep}, and a share of the prompt is 1 at the most")
    return FilterDefaults(
        section.integer("layer", minimum=0, maximum=num_layers - 1),
        keep,
        _read_policy(section, "gemfilter", GemFilterPolicy()),
        _read_policy(section, "adaptive", AdaptivePolicy()),
    )


Policy = TypeVar("Policy", GemFilterPolicy, AdaptivePolicy)

# Lowest and highest value of the whole numbers of a policy.
POLICY_RANGES = {
    "pool": (1, 1023),
    "keep_first": (0, 2**31 - 1),
    "keep_last": (0, 2**31 - 1),
    "chunk": (1, 2**31 - 1),
    "least": (1, 2**31 - 1),
    "window": (1, 1024),
}


def _read_policy(section: ConfigFields, name: str, absent: Policy) -> Policy | None:
    """A policy in which a field that is not there has the value of ``absent``."""
    if not section.has(name):
        return None
    part = section.section(name)
    found: dict[str, Any] = {}
    for field in fields(absent):
        default = getattr(absent, field.name)
        if isinstance(default, bool):
            found[field.name] = part.boolean(field.name, default)
        elif isinstance(default, int):
            least, most = POLICY_RANGES[field.name]
            found[field.name] = part.integer(field.name, default, least, most)
        else:
            found[field.name] = part.share(field.name, default)
    if found["pool"] % 2 == 0:
        raise part.error("pool", f"is {found['pool']}, and must be odd, so that it has a middle")
    return type(absent)(**found)


def filter_section(defaults: FilterDefaults) -> dict[str, Any]:
    """What ``read_filter`` reads ``defaults`` from."""
    return {name: value for name, value in asdict(defaults).items() if value is not None}
