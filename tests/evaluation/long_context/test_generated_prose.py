"""The haystack that ships."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.evaluation.long_context.generated_prose import generated_prose
from lapidist.evaluation.needle_facts import STYLES, draw_needle


@given(st.integers(1, 5000), st.integers(0, 2**31), st.integers(0, 2000))
@settings(max_examples=30, deadline=None)
def test_it_is_as_long_as_asked_and_always_the_same(characters: int, seed: int, more: int) -> None:
    text = generated_prose(characters, seed)
    assert characters <= len(text) <= characters + 2000
    assert generated_prose(characters, seed) == text
    assert generated_prose(characters + more, seed).startswith(text)


def test_it_answers_no_needle() -> None:
    text = generated_prose(200_000)
    rng = np.random.default_rng()
    for style in STYLES * 25:
        assert draw_needle(rng, style).lead not in text
    assert "secret" not in text
    assert "magic" not in text
