"""Choices are found for equal prompts under equal options, the latest ones only."""

from lapidist.engine.prompt_filters import GemFilter
from lapidist.engine.prompt_filters.choice_memory import ChoiceMemory
from lapidist.engine.prompt_filters.outcome import KeptTokens


def test_equal_prompts_and_options() -> None:
    memory = ChoiceMemory()
    choice = KeptTokens([0, 2])
    memory.add([5, 6, 7], GemFilter(keep=2), choice)
    assert memory.find([5, 6, 7], GemFilter(keep=2)) is choice
    assert memory.find([5, 6, 8], GemFilter(keep=2)) is None
    assert memory.find([5, 6], GemFilter(keep=2)) is None
    assert memory.find([5, 6, 7], GemFilter(keep=2, layer=1)) is None


def test_the_one_used_longest_ago_is_forgotten() -> None:
    memory = ChoiceMemory(size=2)
    for token_id in (1, 2):
        memory.add([token_id], GemFilter(), KeptTokens([token_id]))
    assert memory.find([1], GemFilter()) is not None
    memory.add([3], GemFilter(), KeptTokens([3]))
    assert memory.find([2], GemFilter()) is None
    assert memory.find([1], GemFilter()) is not None
    assert memory.find([3], GemFilter()) is not None
