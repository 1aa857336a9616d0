"""Text to the token sequences that calibration runs, and to those that it keeps back."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lapidist.models.errors import CheckpointError
from lapidist.models.tokenizer import Tokenizer

HELD_OUT_SHARE = 0.2
_FEWEST = 16
_SLICE_CHARACTERS = 1 << 16  # of a long document at a time, most of which may not be needed


@dataclass(frozen=True)
class TokenSequences:
    """Sequences of at most a context's length: ``chosen_on`` finds phi, ``held_out`` tests it."""

    chosen_on: list[list[int]]
    held_out: list[list[int]]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.chosen_on + self.held_out))


def token_sequences(
    tokenizer: Tokenizer, texts: Iterable[str], tokens: int, context: int, vocab_size: int
) -> TokenSequences:
    """The first ``tokens`` tokens of ``texts``; the last fifth of them is held out.

    The documents follow one another. The two parts are cut into sequences of ``context`` tokens, each of which opens
    with the beginning-of-text token if the tokenizer sets one, as prompts do.

    Raises
    ------
    ValueError : ``tokens`` or ``context`` is too small, or the text is.
    CheckpointError : the tokenizer is not the model's.
    """
    if tokens < _FEWEST:
        raise ValueError(f"tokens must be at least {_FEWEST}, got {tokens}")
    stream = token_stream(tokenizer, texts, tokens)
    if len(stream) < _FEWEST:
        raise ValueError(f"the calibration text has {len(stream)} tokens: give at least {_FEWEST}")
    if max(stream) >= vocab_size:
        raise CheckpointError(
            f"tokenizer.json gives token id {max(stream)}, and the model has {vocab_size}: it is another model's"
        )
    cut = len(stream) - round(HELD_OUT_SHARE * len(stream))
    opening = opening_tokens(tokenizer)
    return TokenSequences(
        list(_sequences(stream[:cut], context, opening)), list(_sequences(stream[cut:], context, opening))
    )


def token_stream(tokenizer: Tokenizer, texts: Iterable[str], tokens: int) -> list[int]:
    """The first ``tokens`` tokens of the documents, which follow one another; fewer if the text has fewer."""
    found: list[int] = []
    for text in texts:
        for start in range(0, len(text), _SLICE_CHARACTERS):
            piece = text[start : start + _SLICE_CHARACTERS]
            found += tokenizer.encode(piece, add_special_tokens=False)
            if len(found) >= tokens:
                return found[:tokens]
    return found


def opening_tokens(tokenizer: Tokenizer) -> list[int]:
    """The beginning-of-text token, if the tokenizer sets one before every prompt."""
    first = tokenizer.encode("")[:1]
    return first if first == [tokenizer.bos_token_id] else []


def _sequences(stream: list[int], context: int, opening: list[int]) -> Iterator[list[int]]:
    step = context - len(opening)
    for start in range(0, len(stream), step):
        yield opening + stream[start : start + step]
