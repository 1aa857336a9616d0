"""Keys and values of RULER's needles, and the words of its lists."""

import string
import uuid

import numpy as np

from lapidist.evaluation import needle_words as words
from lapidist.evaluation.needle_facts import number, pick

_LONG_KEYS_FROM = 4000  # of 15,000 pairs of an adjective and a noun


def distinct_values(rng: np.random.Generator, kind: str, count: int, separator: str = "-") -> list[str]:
    """``count`` different ones.

    Parameters
    ----------
    kind : "words" (an adjective and a noun), "numbers" (7 digits), "short numbers" (5 digits) or "uuids".
    separator : between the words.
    """
    found: dict[str, None] = {}
    while len(found) < count:
        found[_value(rng, kind, separator, count)] = None
    return list(found)


def _value(rng: np.random.Generator, kind: str, separator: str, count: int) -> str:
    if kind == "numbers":
        return number(rng, 7)
    if kind == "short numbers":
        return number(rng, 5)
    if kind == "uuids":
        return str(uuid.UUID(bytes=rng.bytes(16), version=4))
    adjectives = 2 if count > _LONG_KEYS_FROM else 1
    parts = [pick(rng, words.ADJECTIVES) for _ in range(adjectives)]
    return separator.join([*parts, pick(rng, words.NOUNS)])


def distinct_words(rng: np.random.Generator, count: int) -> list[str]:
    """``count`` different words in random order: nouns and adjectives and, where they do not suffice, compounds."""
    plain = sorted({*words.NOUNS, *words.ADJECTIVES})
    if count <= len(plain):
        return [plain[int(index)] for index in rng.permutation(len(plain))[:count]]
    found = dict.fromkeys(plain)
    while len(found) < count:
        found[pick(rng, words.ADJECTIVES) + pick(rng, words.NOUNS) + pick(rng, words.PLACES).lower()] = None
    names = list(found)
    return [names[int(index)] for index in rng.permutation(len(names))]


def distinct_letters(rng: np.random.Generator, count: int, length: int, alphabet: str) -> list[str]:
    """``count`` different strings of ``length`` letters."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(alphabet[int(index)] for index in rng.integers(len(alphabet), size=length))] = None
    return list(found)


UPPER, LOWER = string.ascii_uppercase, string.ascii_lowercase
