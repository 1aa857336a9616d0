"""Kept tokens as spans of text."""

from collections.abc import Iterator, Sequence

from lapidist.engine.prompt_filters.report import Span
from lapidist.models.tokenizer import Tokenizer


def kept_spans(
    token_ids: Sequence[int], kept: Sequence[int], scores: Sequence[float], tokenizer: Tokenizer
) -> list[Span]:
    """Runs of neighbours among the ``kept`` places (ascending), with their text and mean score.

    A token that is part of a character has U+FFFD for text where the rest of the character was not kept.
    """
    return [
        Span(
            start,
            end,
            tokenizer.decode(list(token_ids[start:end]), skip_special_tokens=False),
            sum(scores[start:end]) / (end - start),
        )
        for start, end in runs(kept)
    ]


def runs(places: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First and last plus one of each run of neighbours among ascending places.

    >>> list(runs([1, 2, 3, 7, 9, 10]))
    [(1, 4), (7, 8), (9, 11)]
    """
    start = 0
    for index in range(1, len(places) + 1):
        if index == len(places) or places[index] != places[index - 1] + 1:
            yield places[start], places[index - 1] + 1
            start = index
