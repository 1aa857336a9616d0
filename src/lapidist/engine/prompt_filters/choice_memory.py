"""Choices of filters for prompts that come again."""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

from lapidist.engine.prompt_filters.config import PromptFilter
from lapidist.engine.prompt_filters.outcome import KeptTokens

_Key = tuple[bytes, PromptFilter]


class ChoiceMemory:
    """The latest choices of tokens by prompt and options, at most ``size``; the one used longest ago goes first.

    Prompts are told apart by a cryptographic hash, for a collision would hand one user's choice to another.
    """

    def __init__(self, size: int = 128) -> None:
        self._size = size
        self._choices: OrderedDict[_Key, KeptTokens] = OrderedDict()

    def find(self, token_ids: Sequence[int], options: PromptFilter) -> KeptTokens | None:
        key = _key(token_ids, options)
        if key in self._choices:
            self._choices.move_to_end(key)
        return self._choices.get(key)

    def add(self, token_ids: Sequence[int], options: PromptFilter, choice: KeptTokens) -> None:
        self._choices[_key(token_ids, options)] = choice
        if len(self._choices) > self._size:
            self._choices.popitem(last=False)


def _key(token_ids: Sequence[int], options: PromptFilter) -> _Key:
    return blake2b(array("q", token_ids).tobytes(), digest_size=16).digest(), options
