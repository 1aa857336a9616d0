"""Prompts of a wanted length for requests whose trace holds no text."""

import random

from lapidist.models.tokenizer import Tokenizer
from lapidist.workload.trace import TraceRequest

Prompt = str | list[int]

# fmt: off
# Everyday words that byte-pair vocabularies of English hold as one token each.
_WORDS = [
    "time", "year", "people", "way", "day", "man", "thing", "life", "child", "world", "school", "state",
    "family", "group", "country", "problem", "hand", "part", "place", "case", "week", "company",
    "system", "question", "work", "number", "night", "point", "home", "water", "room", "area", "money",
    "story", "fact", "month", "right", "study", "book", "word", "business", "side", "kind", "head",
    "house", "service", "friend", "power", "line", "end",
]
# fmt: on


class PromptMaker:
    """Turns a request of a trace into a prompt: its own text, or random tokens of the wanted number.

    Parameters
    ----------
    tokenizer : with one, prompts are exact lists of token ids; without, text of about one token a word.
    seed : the same seed gives the same prompts; each request has another, so no prefix is shared by design.
    """

    def __init__(self, tokenizer: Tokenizer | None, seed: int = 0) -> None:
        self._seed = seed
        self._token_ids = (
            [token for token in range(tokenizer.vocab_size) if token not in tokenizer.special_token_ids]
            if tokenizer is not None
            else None
        )

    def __call__(self, index: int, request: TraceRequest) -> Prompt:
        """The prompt of the ``index``-th request."""
        if request.prompt is not None:
            return request.prompt
        rng = random.Random(f"{self._seed}/{index}")
        if self._token_ids is None:
            return " ".join(rng.choices(_WORDS, k=request.prompt_tokens))
        return rng.choices(self._token_ids, k=request.prompt_tokens)
