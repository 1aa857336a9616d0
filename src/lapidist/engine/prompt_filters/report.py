"""What a filter did to a prompt, for whoever asked."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens that were kept: ``start`` to ``end`` of the prompt, their text, and their mean score."""

    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True)
class FilterReport:
    """The outcome of a prompt filter.

    Attributes
    ----------
    prompt_tokens, kept_tokens : lengths before and after; of methods that work per head, the tokens of each head.
    layer : whose attention chose, counted from 0; None where every layer chose for itself or nothing was filtered.
    kept : ascending positions of the kept tokens in the prompt; None where each head keeps its own.
    bypassed : why the prompt was run plainly, else None.
    from_memory : the choice was made earlier, for an equal prompt.
    seconds : of computation in the filter; the second run over the kept tokens is not in it.
    scratch_bytes : memory that the filter took at its peak beside weights and KV cache, freed when it ended.
    forecast_gain : times less arithmetic than the full prompt takes.
    policy : of the methods that have one, how it scored and chose, all options with their values.
    scores : with ``explain``, a number per prompt token: its score, or the share of (layer, head) pairs that kept it.
    spans : with ``explain``, what was kept, as text.
    """

    method: str
    prompt_tokens: int
    kept_tokens: int
    layer: int | None = None
    kept: list[int] | None = None
    bypassed: str | None = None
    from_memory: bool = False
    seconds: float = 0.0
    scratch_bytes: int = 0
    forecast_gain: float | None = None
    policy: dict[str, Any] | None = None
    scores: list[float] | None = None
    spans: list[Span] | None = None
