"""How a request wants its prompt filtered: one class per method, and how they are read from JSON.

>>> parse_prompt_filter({"method": "gemfilter", "layer": 13, "keep": 1024}).layer
13

Two options are common to all: prompts of fewer than ``threshold`` tokens are run plainly, and ``explain`` has scores
and kept spans of text reported.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from lapidist.engine.errors import InvalidRequestError
from lapidist.models.filter_config import POLICY_RANGES

DEFAULT_KEEP = 1024

Keep = int | float | None
"""Tokens to keep: a whole number of them, or a share of the prompt as a number with a point (0.1; 1.0 is all).
None is what ``lapidist calibrate-filter`` found for the checkpoint, else 1024."""


@dataclass(frozen=True, kw_only=True)
class GemFilter:
    """GemFilter (arXiv 2409.17422): the last token's attention in one early layer chooses the tokens, and the model
    runs on them alone, as on a fresh prompt.

    As published, a token's score is the raw product of its key with the last token's query, after rotary embedding,
    without scale, softmax or mask, summed over all query heads and averaged over ``pool`` neighbours, where positions
    outside the prompt count as zeros. The options of the policy, ``pool`` to ``window``, change which tokens are
    chosen.

    Parameters
    ----------
    keep : see ``Keep``.
    layer : whose attention chooses, counted from 0; layers 0 to ``layer - 1`` see the whole prompt. None is what
        ``lapidist calibrate-filter`` found, else the layer at 13/32 of the depth, as the paper has it for Llama 3.1.
    policy : what the options of the policy are that are None here: ``published`` or ``calibrated``, what
        ``lapidist calibrate-filter`` found. None is ``published`` where an option of the policy is given or the
        checkpoint has no calibrated policy, else ``calibrated``.
    pool : width of the average, odd; 1 is none. Published is 5.
    keep_first, keep_last : so many tokens at either end are kept whatever their scores, within ``keep``. Published are
        0 and 0.
    chunk : choose runs of so many tokens, by the mean of their scores, in place of tokens. Published is 1.
    softmax : scores are attention weights (scaled, softmax over the prompt), not raw products, which are published.
    window : score with so many last queries; keys behind a query do not count for it. Published is 1.
    positions : of the kept tokens in the second run: ``fresh`` counts from 0, ``original`` leaves them where they were.
    """

    method: ClassVar[Literal["gemfilter"]] = "gemfilter"
    keep: Keep = None
    layer: int | None = None
    policy: Literal["published", "calibrated"] | None = None
    pool: int | None = None
    keep_first: int | None = None
    keep_last: int | None = None
    chunk: int | None = None
    softmax: bool | None = None
    window: int | None = None
    positions: Literal["fresh", "original"] = "fresh"
    threshold: int = 0
    explain: bool = False

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """GemFilter that finds filter layer and number of tokens by itself, and runs plainly where filtering would not pay.

    Tokens are scored with attention weights of the last ``window`` queries (mean over heads, averaged over ``pool``
    neighbours). What a token has beyond the mean, which chance would give it, is its excess. The ends are kept, and of
    the tokens between as many as hold ``mass`` of all excess: little of a prompt with one thing to look at, more where
    attention is spread. The first layer decides whose choice fits into ``keep`` and has settled: it repeats that of the
    layer before, with an ``agreement`` of 1 for all of it and 0 for chance (compare arXiv 2601.07667); else the last
    layer that may. The prompt is run plainly if that is forecast to be less than ``gain`` times slower.

    Parameters
    ----------
    keep : the most tokens, see ``Keep``; None is half of the prompt. A share never means fewer than ``least``.
    least : tokens at the least.
    first_layer, last_layer : that may decide. None are the layer that ``lapidist calibrate-filter`` found and the
        second after it, else a quarter and 19/32 of the depth.
    keep_first, keep_last : so many tokens at either end are kept in any case, in half of the room at the most.

    What is None in ``least`` to ``keep_last`` is as ``lapidist calibrate-filter`` found, else as in
    ``models.filter_config.AdaptivePolicy``.
    """

    method: ClassVar[Literal["adaptive"]] = "adaptive"
    keep: Keep = None
    first_layer: int | None = None
    last_layer: int | None = None
    gain: float = 1.1
    least: int | None = None
    mass: float | None = None
    agreement: float | None = None
    window: int | None = None
    pool: int | None = None
    keep_first: int | None = None
    keep_last: int | None = None
    threshold: int = 0
    explain: bool = False

    def __post_init__(self) -> None:
        _check(self)
        if (
            self.first_layer is not None
            and self.last_layer is not None
            and self.last_layer < self.first_layer
        ):
            raise InvalidRequestError(
                f"prompt_filter: last_layer ({self.last_layer}) comes before first_layer ({self.first_layer})"
            )


@dataclass(frozen=True, kw_only=True)
class SnapKV:
    """SnapKV (arXiv 2404.14469): the whole prompt is run; each head of each layer then keeps the keys and values of the
    tokens that the last ``window`` queries attend to most, and those of the window.

    Parameters
    ----------
    keep : tokens per head, the window included, see ``Keep``.
    pool : width of the average over neighbouring tokens, odd.
    """

    method: ClassVar[Literal["snapkv"]] = "snapkv"
    keep: Keep = None
    window: int = 32
    pool: int = 5
    threshold: int = 0
    explain: bool = False

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class H2O:
    """H2O (arXiv 2306.14048): as SnapKV, but the tokens kept beside the last ``recent`` are those with the most
    attention from all queries of the prompt (heavy hitters). The choice is made once, when the prompt ends.
    """

    method: ClassVar[Literal["h2o"]] = "h2o"
    keep: Keep = None
    recent: int = 32
    threshold: int = 0
    explain: bool = False

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class StreamingLLM:
    """StreamingLLM (arXiv 2309.17453): the keys and values of the first ``sinks`` tokens and of the last ones."""

    method: ClassVar[Literal["streamingllm"]] = "streamingllm"
    keep: Keep = None
    sinks: int = 4
    threshold: int = 0
    explain: bool = False

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class FastKV:
    """FastKV (arXiv 2502.01068): up to layer ``layer`` the whole prompt is run; deeper layers go on with the hidden
    states of the tokens alone that the last ``window`` queries attend to most there. Every layer keeps keys and values
    as SnapKV does.

    Parameters
    ----------
    keep : tokens per head whose keys and values are kept, see ``Keep``.
    layer : the last that sees all tokens, counted from 0; None is what ``lapidist calibrate-filter`` found, else the
        layer at 15/32 of the depth.
    propagate : share of the tokens that goes deeper; at least ``keep`` tokens do.
    """

    method: ClassVar[Literal["fastkv"]] = "fastkv"
    keep: Keep = None
    layer: int | None = None
    propagate: float = 0.2
    window: int = 8
    pool: int = 7
    threshold: int = 0
    explain: bool = False

    def __post_init__(self) -> None:
        _check(self)


PromptFilter = GemFilter | Adaptive | SnapKV | H2O | StreamingLLM | FastKV

METHODS: dict[str, type[PromptFilter]] = {
    kind.method: kind for kind in (GemFilter, Adaptive, SnapKV, H2O, StreamingLLM, FastKV)
}


def parse_prompt_filter(value: object) -> PromptFilter:
    """Read ``{"method": ..., options}``; what is a filter already is returned as it is.

    Raises
    ------
    InvalidRequestError : there is no such method or option, or a value is of the wrong type or out of range.
    """
    if isinstance(value, PromptFilter):
        return value
    if not isinstance(value, Mapping):
        raise InvalidRequestError(
            f'prompt_filter must be an object such as {{"method": "gemfilter", "keep": 0.1}}, got {value!r:.80}'
        )
    options = dict(value)
    method = options.pop("method", None)
    if not isinstance(method, str) or method not in METHODS:
        raise InvalidRequestError(
            f"prompt_filter.method must be one of {', '.join(METHODS)}, got {method!r:.80}"
        )
    kind = METHODS[method]
    known = [field.name for field in fields(kind)]
    if unknown := sorted(str(name) for name in options if name not in known):
        raise InvalidRequestError(
            f"prompt_filter: {method} has no option {unknown[0]!r:.80}; it has {', '.join(known)}"
        )
    return kind(**options)


# Lowest and highest value of the whole numbers, where they are no None.
_WHOLE = POLICY_RANGES | {
    "layer": (0, 10_000),
    "first_layer": (0, 10_000),
    "last_layer": (0, 10_000),
    "threshold": (0, 2**31 - 1),
    "recent": (1, 2**31 - 1),
    "sinks": (0, 2**31 - 1),
}
_FLAGS = ("softmax", "explain")
_WORDS = {"positions": ("fresh", "original"), "policy": ("published", "calibrated")}


def _check(options: Any) -> None:
    """
    Raises
    ------
    InvalidRequestError : a value is of the wrong type or out of range.
    """
    for field in fields(options):
        name, value = field.name, getattr(options, field.name)
        may_be_none = field.default is None
        if not (may_be_none and value is None) and (problem := _problem(name, value)):
            raise InvalidRequestError(f"prompt_filter.{name} {problem}, got {value!r:.80}")


def _problem(name: str, value: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "keep":
        valid = number and (value >= 1 if isinstance(value, int) else 0 < value <= 1)
        return (
            None
            if valid
            else "must be a whole number of tokens or a share of the prompt above 0 and up to 1.0"
        )
    if name in _FLAGS:
        return None if isinstance(value, bool) else "must be true or false"
    if name in ("mass", "propagate"):
        return None if number and 0 < value <= 1 else "must be a number above 0 and up to 1"
    if name == "agreement":
        return None if number and 0 <= value <= 1 else "must be a number from 0 to 1"
    if name == "gain":
        return None if number and 1 <= value <= 100 else "must be a number from 1 to 100"
    if name in _WORDS:
        return None if value in _WORDS[name] else f"must be {' or '.join(_WORDS[name])}"
    least, most = _WHOLE[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        return f"must be a whole number from {least} to {most}"
    if name == "pool" and value % 2 == 0:
        return "must be odd, so that it has a middle"
    return None
