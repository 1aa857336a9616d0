"""A training row: token ids and, beside each, which part of the curriculum it teaches."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from tokenizers import Tokenizer

from recipes.tiny.corpus import Source
from recipes.tiny.tokenizer import encode


class Part(IntEnum):
    """What predicting a token teaches; CONTEXT tokens (random keys, random values) are read but not
    predicted.
    """

    CONTEXT = 0
    TEXT = 1
    KEY_VALUE = 2
    NEEDLE = 3
    COPY = 4
    CHAT = 5
    PROSE = 6


# Answers are few among many text tokens, so each counts for several.
PART_WEIGHTS = np.array([0.0, 1.0, 2.0, 5.0, 1.0, 1.0, 1.0], dtype=np.float32)


@dataclass
class Row:
    """Tokens and parts of equal length, grown left to right."""

    tokens: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)

    def add(self, tokens: list[int], part: Part) -> None:
        self.tokens += tokens
        self.parts += [int(part)] * len(tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def cut(self, length: int) -> None:
        del self.tokens[length:], self.parts[length:]


@dataclass(frozen=True)
class Materials:
    """What rows are made of: the tokenizer, the text, and whole words that are single tokens."""

    tokenizer: Tokenizer
    sources: list[Source]
    words: list[str]

    def encode(self, text: str) -> list[int]:
        return encode(self.tokenizer, text)

    def passage(self, rng: np.random.Generator, length: int) -> tuple[list[int], list[int]]:
        """`length` tokens of real text from a random place, and the offsets in it where a sentence starts."""
        weights = np.array([source.weight for source in self.sources])
        source = self.sources[int(rng.choice(len(self.sources), p=weights / weights.sum()))]
        start = int(rng.integers(max(1, len(source.tokens) - length)))
        first, last = np.searchsorted(source.sentence_starts, [start, start + length])
        starts = (source.sentence_starts[first:last] - start).tolist()
        return source.tokens[start : start + length].tolist(), starts


def whole_words(tokenizer: Tokenizer) -> list[str]:
    """Lower-case words of four or more letters that the tokenizer keeps whole after a space, sorted."""
    candidates = (token[1:] for token in tokenizer.get_vocab() if token.startswith("Ġ"))
    return sorted(
        word for word in candidates if len(word) >= 4 and word.isascii() and word.islower() and word.isalpha()
    )
