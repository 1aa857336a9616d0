"""A prompt cut into the texts of its tokens, with what a filter thought of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from lapidist.engine.detokenizer import IncrementalDetokenizer
from lapidist.engine.outputs import RequestOutput
from lapidist.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenPiece:
    """The text of one token; empty where a character continues in the next."""

    text: str
    kept: bool
    score: float


def token_pieces(output: RequestOutput, tokenizer: Tokenizer) -> list[TokenPiece] | None:
    """Of every prompt token; None where the prompt was not filtered, or without ``explain``."""
    report = output.prompt_filter
    if report is None or report.scores is None or report.spans is None or report.bypassed is not None:
        return None
    kept = {place for span in report.spans for place in range(span.start, span.end)}
    texts = token_texts(output.prompt_token_ids, tokenizer)
    return [
        TokenPiece(text, place in kept, score)
        for place, (text, score) in enumerate(zip(texts, report.scores, strict=True))
    ]


def token_texts(token_ids: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """Texts that add up to the prompt's. A character of several tokens is the last one's."""
    detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=False)
    texts = [detokenizer.append(token_id) for token_id in token_ids]
    texts[-1] += detokenizer.flush()
    return texts


def stretches(pieces: Sequence[TokenPiece]) -> Iterator[tuple[bool, str]]:
    """Neighbouring tokens of one fate: whether they were kept, and their text."""
    for kept, group in groupby(pieces, key=lambda piece: piece.kept):
        yield kept, "".join(piece.text for piece in group)
