"""Ways to run a long prompt, to be compared: in full, or through one of the engine's prompt filters."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lapidist.engine.prompt_filters.config import METHODS, PromptFilter, parse_prompt_filter

FULL = "full"


@dataclass(frozen=True)
class Method:
    """``label`` is what the user wrote; ``prompt_filter`` is None for the full prompt."""

    label: str
    prompt_filter: PromptFilter | None

    def describe(self) -> dict[str, Any] | None:
        """The filter with all of its options, as JSON has it."""
        if self.prompt_filter is None:
            return None
        return {"method": self.prompt_filter.method, **asdict(self.prompt_filter)}


def parse_methods(given: str, keep: int | float | None) -> list[Method]:
    """Methods from ``full,gemfilter,gemfilter:layer=3:positions=original``.

    Parameters
    ----------
    keep : of each filter that sets none itself, see ``lapidist.engine.prompt_filters.config.Keep``.

    Raises
    ------
    ValueError : there is no such method or option, a value is out of range, or a method stands there twice.
    """
    methods = [_parse(part.strip(), keep) for part in given.split(",") if part.strip()]
    if not methods:
        raise ValueError(f"name at least one method of {', '.join([FULL, *METHODS])}")
    labels = [method.label for method in methods]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ValueError(f"the method {twice} is named twice")
    return methods


def parse_keep(given: str) -> int | float:
    """A share of the prompt such as 0.1, or a whole number of tokens such as 1024.

    Raises
    ------
    ValueError : it is neither.
    """
    try:
        value = float(given) if "." in given else int(given)
    except ValueError:
        value = 0
    if value <= 0 or (isinstance(value, float) and value > 1):
        raise ValueError(
            f"keep must be a share such as 0.1 or a number of tokens such as 1024, got {given!r}"
        )
    return value


def _parse(text: str, keep: int | float | None) -> Method:
    name, *options = text.split(":")
    if name == FULL:
        if options:
            raise ValueError(f"the method {FULL} has no options, got {text!r}")
        return Method(text, None)
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}: name some of {', '.join([FULL, *METHODS])}")
    fields: dict[str, Any] = {"method": name} if keep is None else {"method": name, "keep": keep}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"{text!r}: an option is written as name=value, got {option!r}")
        fields[key] = _value(value)
    return Method(text, parse_prompt_filter(fields))


def _value(text: str) -> Any:
    """A number, true or false, or else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def labels(methods: Sequence[Method]) -> list[str]:
    return [method.label for method in methods]
