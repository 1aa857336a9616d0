"""The policy of a request: what it says itself, what was calibrated for the checkpoint, and the defaults."""

from dataclasses import fields, replace
from typing import Any

from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.prompt_filters.config import Adaptive, GemFilter
from lapidist.models.filter_config import AdaptivePolicy, FilterDefaults, GemFilterPolicy


def gemfilter_policy(options: GemFilter, calibrated: FilterDefaults | None) -> GemFilterPolicy:
    """See ``GemFilter.policy``.

    Raises
    ------
    InvalidRequestError : the calibrated policy is wanted, and the checkpoint has none.
    """
    found = None if calibrated is None else calibrated.gemfilter
    if options.policy == "calibrated" and found is None:
        raise InvalidRequestError(
            "prompt_filter.policy is calibrated, and the checkpoint has no calibrated policy: run "
            "lapidist calibrate-filter"
        )
    given = _given(options, GemFilterPolicy())
    is_calibrated = options.policy == "calibrated" or (options.policy is None and not given)
    return replace(found if found is not None and is_calibrated else GemFilterPolicy(), **given)


def names_policy(options: GemFilter) -> bool:
    """Whether the request says anything about the policy."""
    return options.policy is not None or bool(_given(options, GemFilterPolicy()))


def adaptive_policy(options: Adaptive, calibrated: FilterDefaults | None) -> AdaptivePolicy:
    """What the request says, the rest as it was calibrated, or else the default."""
    found = None if calibrated is None else calibrated.adaptive
    return replace(found or AdaptivePolicy(), **_given(options, AdaptivePolicy()))


def _given(options: GemFilter | Adaptive, policy: GemFilterPolicy | AdaptivePolicy) -> dict[str, Any]:
    """The options of the policy that the request names."""
    values = {field.name: getattr(options, field.name) for field in fields(policy)}
    return {name: value for name, value in values.items() if value is not None}
