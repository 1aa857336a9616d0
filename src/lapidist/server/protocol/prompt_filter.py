"""What the answer says about the filter of its prompt."""

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from lapidist.engine.prompt_filters import FilterReport


class KeptSpan(BaseModel):
    """Neighbouring tokens that were kept, from ``start`` up to ``end`` of the prompt, and their mean score."""

    start: int
    end: int
    text: str
    score: float


class PromptFilterReport(BaseModel):
    """``kept``, ``scores`` and ``spans`` are there with ``explain``."""

    method: str
    prompt_tokens: int
    kept_tokens: int
    layer: int | None
    bypassed: str | None
    from_memory: bool
    seconds: float
    scratch_bytes: int
    forecast_gain: float | None
    policy: dict[str, Any] | None
    kept: list[int] | None = None
    scores: list[float] | None = None
    spans: list[KeptSpan] | None = None


def report_object(report: FilterReport) -> dict[str, Any]:
    """The report as JSON: of the long lists only those that were asked for."""
    content = asdict(report)
    if report.spans is None:
        for name in ("kept", "scores", "spans"):
            del content[name]
    return content
