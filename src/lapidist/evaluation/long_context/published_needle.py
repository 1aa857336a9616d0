"""The needle test of GemFilter's paper (arXiv 2409.17422, section 4.1 and the authors' repository), as it is run there.

One needle, the sandwich in Dolores Park, in essays cut to 40 lengths, at 10 depths; a plain-text wrapper whatever the
model; a score by words that no answer brings above 11/12.
"""

from collections.abc import Sequence

import numpy as np

from lapidist.evaluation.long_context.case import Case
from lapidist.models.tokenizer import Tokenizer

LENGTHS: tuple[int, ...] = tuple(np.linspace(1000, 128000, 40).round().astype(int).tolist())
DEPTHS: tuple[int, ...] = tuple(np.linspace(0, 100, 10).round().astype(int).tolist())
"""Percent."""

NEEDLE = "\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.\n"
QUESTION = "What is the best thing to do in San Francisco?"
ANSWER = "eat a sandwich and sit in Dolores Park on a sunny day."
_ANSWER_WORDS = ANSWER.lower().split()
CEILING = len(set(_ANSWER_WORDS)) / len(_ANSWER_WORDS)
"""11/12: "a" stands twice in the answer, and is counted once in what was found of it."""

NEW_TOKENS = 50
_BUFFER = 200  # tokens of a length that are kept free


def lengths_between(shortest: int, longest: int) -> tuple[int, ...]:
    """Those of ``LENGTHS`` that lie between the two, themselves included."""
    return tuple(length for length in LENGTHS if shortest <= length <= longest)


def word_score(response: str, expected: Sequence[str] = (ANSWER,)) -> float:
    """Share of the answer's twelve words that the response has, each counted once; the most is ``CEILING``."""
    words = expected[0].lower().split()
    return len(set(response.lower().split()) & set(words)) / len(words)


class PublishedNeedle:
    """The prompts.

    Texts become tokens and text again exactly where the authors' script does that. Thus the beginning-of-text token of
    models that have one also stands before the essays and before the needle, and counts as a period when the place
    of the needle is looked for.

    Parameters
    ----------
    essays : of the haystack, in order. They are repeated until they have ``longest`` tokens.

    Raises
    ------
    ValueError : there is no text.
    """

    def __init__(self, essays: Sequence[str], tokenizer: Tokenizer, longest: int) -> None:
        text = "".join(essays)
        if not text.strip():
            raise ValueError("the haystack has no text")
        self._tokenizer = tokenizer
        once = tokenizer.encode(text)
        self._tokens = once if len(once) >= longest else tokenizer.encode(text * (longest // len(once) + 1))

    def prompt(self, length: int, depth: int) -> list[int]:
        """Token ids of the prompt for a context of ``length`` tokens (about 150 fewer, wrapper included) with the
        needle at ``depth`` percent."""
        tokenizer = self._tokenizer
        context = tokenizer.encode(tokenizer.decode(self._tokens[:length], skip_special_tokens=False))
        needle = tokenizer.encode(NEEDLE)
        context = context[: max(0, length - _BUFFER - len(needle))]
        place = len(context) if depth == 100 else self._place(context, depth)
        hidden = tokenizer.decode(context[:place] + needle + context[place:], skip_special_tokens=False)
        return tokenizer.encode(
            f"<|im_start|> This is a very long story book: <book> {hidden} </book>.\n "
            f"Based on the content of the book, Question: {QUESTION}\nAnswer:"
        )

    def _place(self, context: list[int], depth: int) -> int:
        """After the last period up to ``depth`` percent of the context."""
        periods = set(self._tokenizer.encode("."))
        place = int(len(context) * (depth / 100))
        while place > 0 and context[place - 1] not in periods:
            place -= 1
        return place

    def cases(self, length: int, depths: Sequence[int] = DEPTHS) -> list[Case]:
        """One per depth."""
        return [
            Case(f"{depth}%", self.prompt(length, depth), NEW_TOKENS, (ANSWER,), word_score)
            for depth in depths
        ]
