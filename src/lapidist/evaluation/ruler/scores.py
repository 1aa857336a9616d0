"""RULER's scores: how much of what was asked for a reply contains."""

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f]")


def match_all(response: str, outputs: Sequence[str]) -> float:
    """Share of ``outputs`` that the response contains, whatever their case (``string_match_all``)."""
    text = _clean(response)
    return sum(output.lower() in text for output in outputs) / len(outputs)


def match_part(response: str, outputs: Sequence[str]) -> float:
    """1 if the response contains any of ``outputs``, else 0 (``string_match_part``, for questions)."""
    text = _clean(response)
    return float(any(output.lower() in text for output in outputs))


def _clean(response: str) -> str:
    return _CONTROL.sub("\n", response.strip()).strip().lower()
