"""A long text in windows that fit a model's context."""

from dataclasses import dataclass

from lapidist.evaluation.text import TokenizedText

PUBLISHED_SIZE = 2048
"""Tokens in a window of the perplexities that papers report (for example QServe, arXiv 2405.04532)."""


@dataclass(frozen=True)
class Window:
    """Tokens that a model sees together.

    Attributes
    ----------
    first_scored : index into ``token_ids``, at least 1. From here on each token is predicted from those before it.
    byte_count : bytes of text that the scored tokens stand for.
    is_full : it has the size asked for; only the last one of a text may be shorter.
    """

    token_ids: list[int]
    first_scored: int
    byte_count: int
    is_full: bool

    @property
    def predictions(self) -> int:
        return len(self.token_ids) - self.first_scored


def cut(
    text: TokenizedText,
    context: int,
    size: int | None = None,
    stride: int | None = None,
    open_each: bool = False,
) -> list[Window]:
    """The windows of ``text``.

    Parameters
    ----------
    context : the model's.
    size : tokens in a window; None is 2048, or ``context`` if that is less.
    stride : text tokens from one window's start to the next one's; None is no overlap. In an overlap only tokens that
        no earlier window has scored are scored, so that they have more context.
    open_each : begin every window with the opening of ``text``, so that its first token is predicted too. Otherwise
        the opening is merely the first token of the text.

    Raises
    ------
    ValueError : ``size`` or ``stride`` is out of range, or ``text`` has no opening.
    """
    size = min(PUBLISHED_SIZE, context) if size is None else size
    if not 2 <= size <= context:
        raise ValueError(f"window must be from 2 to the model's {context} tokens, got {size}")
    if open_each and not text.opening:
        raise ValueError("the tokenizer sets no beginning-of-text token that windows could begin with")
    opening = list(text.opening) if open_each else []
    token_ids, byte_counts = text.token_ids, text.byte_counts
    if not open_each:
        token_ids = [*text.opening, *token_ids]
        byte_counts = [0] * len(text.opening) + byte_counts
    room = size - len(opening)
    stride = room if stride is None else stride
    if not 1 <= stride <= room:
        raise ValueError(f"stride must be from 1 to the {room} text tokens of a window, got {stride}")
    windows: list[Window] = []
    scored = 0
    for start in range(0, len(token_ids), stride):
        end = min(start + room, len(token_ids))
        first = max(scored, start + 1 - len(opening))
        if first < end:
            ids = opening + token_ids[start:end]
            first_index = first - start + len(opening)
            windows.append(Window(ids, first_index, sum(byte_counts[first:end]), len(ids) == size))
        scored = end
        if end == len(token_ids):
            break
    return windows
