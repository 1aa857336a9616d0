"""GemFilter's needle test: its grid, its prompts and its score."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.bundled import TINY
from lapidist.evaluation.long_context.generated_prose import generated_prose
from lapidist.evaluation.long_context.published_needle import (
    ANSWER,
    CEILING,
    DEPTHS,
    LENGTHS,
    NEEDLE,
    QUESTION,
    PublishedNeedle,
    lengths_between,
    word_score,
)
from lapidist.models.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_directory(TINY)
ESSAYS = ["First essay. " + generated_prose(9000, seed=1), "Second essay. " + generated_prose(3000, seed=2)]


def test_the_grid_is_the_published_one() -> None:
    """arXiv 2409.17422, appendix, and the authors' repository: 19 lengths up to 60K, 37 up to 120K."""
    assert len(LENGTHS) == 40
    assert (LENGTHS[0], LENGTHS[1], LENGTHS[18], LENGTHS[36], LENGTHS[-1]) == (
        1000,
        4256,
        59615,
        118231,
        128000,
    )
    assert DEPTHS == (0, 11, 22, 33, 44, 56, 67, 78, 89, 100)
    assert len(lengths_between(0, 60000)) == 19
    assert len(lengths_between(0, 120000)) == 37
    assert lengths_between(1000, 4256) == (1000, 4256)


def test_a_perfect_answer_scores_eleven_twelfths() -> None:
    assert word_score(ANSWER) == pytest.approx(11 / 12) == CEILING
    assert word_score(f"The best thing to do in San Francisco is to {ANSWER.upper()}") == CEILING
    assert word_score("") == 0
    assert word_score("a a a a a") == 1 / 12
    assert word_score("sit in the park on a sunny day") == 6 / 12  # "day" is not "day."


@pytest.mark.parametrize("length", [700, 1000, 2048, 5000])
def test_prompts_hold_the_needle_after_a_period(length: int) -> None:
    needle = PublishedNeedle(ESSAYS, TOKENIZER, length)
    befores = []
    for depth in DEPTHS:
        ids = needle.prompt(length, depth)
        assert length - 200 - 10 <= len(ids) <= length - 200 + 80
        text = TOKENIZER.decode(ids, skip_special_tokens=False)
        # The script makes text of tokens and tokens of text, which adds the beginning-of-text token each time. At depth
        # 0 the needle comes before the first of them.
        first = "<|bos|>First essay. " if depth else NEEDLE
        assert text.startswith(f"<|bos|><|im_start|> This is a very long story book: <book> <|bos|>{first}")
        assert text.endswith(f" </book>.\n Based on the content of the book, Question: {QUESTION}\nAnswer:")
        assert text.count(NEEDLE) == 1
        before, _, after = text.partition(NEEDLE)
        # The script's beginning-of-text token comes along, and ends a walk back that meets no period.
        before = before.removesuffix("<|bos|>")
        if 0 < depth < 100:
            assert before.endswith("."), depth
        befores.append(len(TOKENIZER.encode(before)))
        if depth == 100:
            assert after.startswith(" </book>")
    assert befores == sorted(befores)
    for depth, before in zip(DEPTHS, befores, strict=True):
        assert depth / 100 * (length - 240) - 80 <= before <= depth / 100 * length + 40


def test_a_short_haystack_is_repeated_and_files_keep_their_order() -> None:
    text = TOKENIZER.decode(PublishedNeedle(ESSAYS, TOKENIZER, 9000).prompt(9000, 0))
    assert text.count("First essay.") >= 2
    assert text.index("First essay.") < text.index("Second essay.")
    with pytest.raises(ValueError, match="no text"):
        PublishedNeedle(["  "], TOKENIZER, 1000)


@given(st.text(max_size=200))
@settings(max_examples=50)
def test_the_score_never_passes_its_ceiling(response: str) -> None:
    assert 0 <= word_score(response) <= CEILING
    assert word_score(response + " " + ANSWER) == CEILING


def test_the_answer_is_what_the_needle_says() -> None:
    assert re.fullmatch(rf"\nThe best thing to do in San Francisco is {re.escape(ANSWER)}\n", NEEDLE)
