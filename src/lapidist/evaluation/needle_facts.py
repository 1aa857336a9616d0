"""Facts that nobody can guess, to be hidden in a text and asked for."""

from dataclasses import dataclass

import numpy as np

from lapidist.evaluation import needle_words as words

STYLES = ["number", "word", "sentence", "chat"]
"""What is hidden: a number, a word, or a dozen words to give back; chat is a number asked for in a chat template."""


@dataclass(frozen=True)
class Needle:
    """``lead`` begins both the hidden statement and the reply; ``answer`` follows it, with its space."""

    question: str
    lead: str
    answer: str

    @property
    def statement(self) -> str:
        return f"{self.lead}{self.answer}."


def draw_needle(rng: np.random.Generator, style: str) -> Needle:
    """One of ``STYLES``."""
    if style == "sentence":
        city, answer = pick(rng, words.CITIES), outing(rng)
        return Needle(
            f"What is the best thing to do in {city}?", f"The best thing to do in {city} is to", answer
        )
    kind = "secret word" if style == "word" else "secret number"
    value = pick(rng, words.NOUNS) if style == "word" else number(rng, 5)
    subject = thing(rng)
    return Needle(f"What is the {kind} for the {subject}?", f"The {kind} for the {subject} is", f" {value}")


def draw_others(rng: np.random.Generator, style: str, needle: Needle, count: int) -> list[Needle]:
    """``count`` needles whose questions differ from each other's and from that of ``needle``.

    Raises
    ------
    ValueError : there are not so many.
    """
    found = {needle.question: needle}
    for _ in range(100 * (count + 1)):
        if len(found) > count:
            return list(found.values())[1:]
        other = draw_needle(rng, style)
        found.setdefault(other.question, other)
    raise ValueError(f"there are not {count + 1} different needles of style {style}: hide fewer")


def pick(rng: np.random.Generator, choices: list[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def thing(rng: np.random.Generator) -> str:
    """An adjective and a noun, about 15,000 different ones."""
    return f"{pick(rng, words.ADJECTIVES)} {pick(rng, words.NOUNS)}"


def number(rng: np.random.Generator, digits: int | None = None) -> str:
    """A random number of 3 to 7 digits (or ``digits``), its first digit not zero."""
    count = digits or int(rng.integers(3, 8))
    return str(rng.integers(10 ** (count - 1), 10**count))


def outing(rng: np.random.Generator) -> str:
    """Something to do, a dozen words that cannot be guessed, with a space before them."""
    park = f"{pick(rng, words.NOUNS).capitalize()} {pick(rng, words.PLACES)}"
    return (
        f" eat a {pick(rng, words.FOODS)} and {pick(rng, words.ACTIVITIES)} in {park} "
        f"on a {pick(rng, words.WEATHER)} day"
    )
