"""A text to hide needles in when the user gives none: plain sentences, endless, and always the same."""

from collections.abc import Iterator

import numpy as np

from lapidist.evaluation import needle_words as words
from lapidist.evaluation.needle_facts import pick, thing

_SENTENCES_IN_A_PARAGRAPH = 7


def generated_prose(characters: int, seed: int = 0) -> str:
    """Paragraphs of at least ``characters`` characters; equal seeds give equal text, and a longer text begins with a
    shorter one."""
    paragraphs, written = [], -2  # nothing stands between the first paragraph and one before it
    sentences = _sentences(np.random.default_rng(seed))
    while written < characters:
        paragraph = " ".join(next(sentences) for _ in range(_SENTENCES_IN_A_PARAGRAPH))
        paragraphs.append(paragraph)
        written += len(paragraph) + 2
    return "\n\n".join(paragraphs)


def _sentences(rng: np.random.Generator) -> Iterator[str]:
    """Sentences that state no secret and answer no question that a needle does."""
    makers = (
        lambda: f"The {thing(rng)} stood near the {thing(rng)}, and nobody asked who had brought it there.",
        lambda: f"In {pick(rng, words.CITIES)} the morning was {pick(rng, words.WEATHER)}.",
        lambda: (
            f"A {pick(rng, words.NOUNS)} is not a {pick(rng, words.NOUNS)}, though many people take one for the other."
        ),
        lambda: (
            f"We went to the {pick(rng, words.PLACES).lower()} to {pick(rng, words.ACTIVITIES)} until it grew dark."
        ),
        lambda: (
            f"Most travellers between {pick(rng, words.CITIES)} and {pick(rng, words.CITIES)} never notice the "
            f"{thing(rng)}."
        ),
        lambda: f"They sold a {pick(rng, words.FOODS)} and a {thing(rng)} for the same price.",
        lambda: f"It was a {pick(rng, words.ADJECTIVES)} year for the {pick(rng, words.NOUNS)}, people said.",
        lambda: f"Why the {thing(rng)} had been moved, the letter did not say.",
    )
    while True:
        yield makers[int(rng.integers(len(makers)))]()
