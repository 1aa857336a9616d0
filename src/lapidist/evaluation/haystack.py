"""Text to hide needles in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lapidist.models.tokenizer import Tokenizer

_SENTENCE_ENDS = (b".", b"!", b"?")
_SPACES = (b" ", b"\n")


@dataclass(frozen=True)
class Haystack:
    """Token ids ``[tokens]`` and the ascending positions where sentences start."""

    tokens: np.ndarray
    sentence_starts: np.ndarray


def haystack_of(text: str, tokenizer: Tokenizer) -> Haystack:
    tokens = np.asarray(tokenizer.encode(text, add_special_tokens=False), dtype=np.int64)
    return Haystack(tokens, sentence_starts(tokens, tokenizer))


def sentence_starts(tokens: Sequence[int] | np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Positions, int64 ``[sentences]``, between a full stop (or ! or ?) and a space or line end, or after both where
    they are one token."""
    distinct, places = np.unique(tokens, return_inverse=True)
    pieces = [tokenizer.token_bytes(int(token_id)) for token_id in distinct]
    ends = np.array([piece.strip() in _SENTENCE_ENDS for piece in pieces], dtype=bool)[places]
    closed = np.array([piece[-1:] in _SPACES for piece in pieces], dtype=bool)[places]
    opens = np.array([piece[:1] in _SPACES for piece in pieces], dtype=bool)[places]
    return np.flatnonzero(ends[:-1] & (closed[:-1] | opens[1:])) + 1
