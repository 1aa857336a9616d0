"""What the engine returns. Field names follow vLLM's, which the field already knows."""

from dataclasses import dataclass, field
from typing import Literal

from lapidist.engine.prompt_filters.report import FilterReport

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True)
class Logprob:
    """Log-probability of one token under the model's own distribution (before temperature and filters).

    ``rank`` counts from 1, the most likely token.
    """

    logprob: float
    rank: int
    decoded_token: str


TokenLogprobs = dict[int, Logprob]


@dataclass
class CompletionOutput:
    """One of the ``n`` completions of a request; ``text`` and ``token_ids`` grow while it streams.

    ``stop_reason`` is the stop string or stop token id that ended it, or the reason of an "error"; None for the model's
    own end of text.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestMetrics:
    """Times in seconds on the engine's monotonic clock; None until the event has happened."""

    arrival_time: float
    first_scheduled_time: float | None = None
    first_token_time: float | None = None
    finished_time: float | None = None


@dataclass
class RequestOutput:
    """State of a request: complete when ``finished``, otherwise as far as it has come.

    ``prompt_logprobs`` has one entry per prompt token; the first is None (nothing precedes it).
    ``num_cached_tokens`` counts prompt tokens whose KV came from the prefix cache. ``prompt_filter`` tells what a
    filter did to the prompt, once it has done so; ``prompt_token_ids`` are those of the whole prompt.
    """

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestMetrics
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    num_cached_tokens: int = field(default=0)
    prompt_filter: FilterReport | None = None
