"""A prompt of an evaluation, and what came of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One prompt.

    Attributes
    ----------
    row : what it belongs to beside the prompt's length: a depth, a task.
    expected : what the reply should hold; with the reply the arguments of ``score``, which gives 0 to 1.
    """

    row: str
    prompt: list[int]
    max_new_tokens: int
    expected: tuple[str, ...]
    score: Callable[[str, Sequence[str]], float]


@dataclass(frozen=True)
class Outcome:
    """What a method made of a case.

    Attributes
    ----------
    prompt_tokens, kept_tokens : before and after the filter; equal without one.
    bypassed : why a filter let the whole prompt through, else None.
    """

    row: str
    score: float
    response: str
    expected: tuple[str, ...]
    prompt_tokens: int
    kept_tokens: int
    bypassed: str | None = None
