"""How one request wants its tokens chosen. Names and defaults follow vLLM and the OpenAI API."""

import math
from dataclasses import dataclass, field
from typing import Any

from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.prompt_filters.config import PromptFilter, parse_prompt_filter


@dataclass(frozen=True)
class StructuredOutput:
    """A constraint on the generated text: exactly one of the fields is set.

    ``json_schema``: a JSON Schema as a dict (``{}`` admits any JSON value). ``regex``: the whole output must match.
    """

    json_schema: dict[str, Any] | None = None
    regex: str | None = None

    def __post_init__(self) -> None:
        if (self.json_schema is None) == (self.regex is None):
            raise InvalidRequestError("structured_output takes exactly one of json_schema and regex")


@dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters of a request.

    Parameters
    ----------
    n : completions per prompt.
    temperature : 0 is greedy.
    top_k : keep the k likeliest tokens; 0 or -1 keeps all.
    top_p, min_p : nucleus mass in (0, 1]; minimum probability relative to the likeliest token in [0, 1].
    presence_penalty, frequency_penalty : in [-2, 2], over generated tokens (OpenAI's definition).
    repetition_penalty : in [0.01, 100], over prompt and generated tokens (CTRL, arXiv 1909.05858); 1 is off.
    seed : the request's own random stream; its tokens then do not depend on the rest of the batch.
    stop, stop_token_ids : strings and token ids that end the generation.
    include_stop_str_in_output : keep the stop string in ``text``.
    max_tokens : generated tokens at most; None is up to the model's context.
    min_tokens : end-of-text and stops are not honoured before so many tokens.
    ignore_eos : go on past the model's end-of-text token.
    logprobs, prompt_logprobs : how many likeliest tokens to report per position beside the chosen one;
        -1 is the whole vocabulary, None reports nothing.
    logit_bias : token id -> value in [-100, 100] added to the logit.
    skip_special_tokens : leave special tokens out of ``text``.
    structured_output : constrain the text to a JSON schema or a regular expression.
    prompt_filter : run a long prompt at a fraction of its cost; an object of ``lapidist.engine.prompt_filters`` or a
        dict such as ``{"method": "gemfilter", "keep": 0.1}``.

    Raises
    ------
    InvalidRequestError : a value is outside its range; the message names the parameter.
    """

    n: int = 1
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    skip_special_tokens: bool = True
    structured_output: StructuredOutput | None = None
    prompt_filter: PromptFilter | None = None
    stop_strings: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        stops = [self.stop] if isinstance(self.stop, str) else list(self.stop or [])
        object.__setattr__(self, "stop_strings", tuple(stops))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not low <= value <= high:
                raise InvalidRequestError(f"{name} must be a number from {low} to {high}, got {value!r}")
        for name, low in _INTEGERS:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise InvalidRequestError(f"{name} must be an integer of at least {low}, got {value!r}")
        if self.top_p <= 0:
            raise InvalidRequestError(f"top_p must be greater than 0, got {self.top_p!r}")
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequestError(
                f"min_tokens ({self.min_tokens}) exceeds max_tokens ({self.max_tokens})"
            )
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise InvalidRequestError("stop takes non-empty strings")
        if self.structured_output is not None and self.ignore_eos:
            raise InvalidRequestError(
                "ignore_eos cannot be combined with structured_output, whose end is the end"
            )

        if self.prompt_filter is not None:
            object.__setattr__(self, "prompt_filter", parse_prompt_filter(self.prompt_filter))
            if self.prompt_logprobs is not None:
                raise InvalidRequestError("prompt_logprobs cannot be had of a prompt that is filtered")

    @property
    def greedy(self) -> bool:
        return self.temperature < _GREEDY_BELOW


# Below this temperature the softmax is one-hot in float32, so the arg-max is taken directly.
_GREEDY_BELOW = 1e-5
_RANGES = (
    ("temperature", 0.0, 100.0),
    ("top_p", 0.0, 1.0),
    ("min_p", 0.0, 1.0),
    ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
    # Below 0.01 the penalty would overflow the logits.
    ("repetition_penalty", 0.01, 100.0),
)
_INTEGERS = (
    ("n", 1),
    ("top_k", -1),
    ("max_tokens", 1),
    ("min_tokens", 0),
    ("logprobs", -1),
    ("prompt_logprobs", -1),
    ("seed", -(2**63)),
)
_OPTIONAL = {"max_tokens", "logprobs", "prompt_logprobs", "seed"}
