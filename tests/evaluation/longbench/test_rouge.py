"""ROUGE-L as LongBench takes it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.evaluation.longbench.rouge import longest_common_subsequence, rouge_l

WORDS = st.lists(st.sampled_from("abcd"), max_size=12)


@given(WORDS, WORDS)
def test_a_longest_common_subsequence(first: list[str], second: list[str]) -> None:
    found = longest_common_subsequence(first, second)
    for text in (first, second):
        rest = iter(text)
        assert all(word in rest for word in found)  # in order
    assert len(found) == longest(tuple(first), tuple(second))


def longest(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    """By definition, for short texts."""
    table: dict[tuple[int, int], int] = {}
    for i in range(len(first) + 1):
        for j in range(len(second) + 1):
            if i == 0 or j == 0:
                table[i, j] = 0
            elif first[i - 1] == second[j - 1]:
                table[i, j] = table[i - 1, j - 1] + 1
            else:
                table[i, j] = max(table[i - 1, j], table[i, j - 1])
    return table[len(first), len(second)]


@pytest.mark.parametrize(
    ("summary", "reference", "expected"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("the cat sat", "the dog sat", 2 / 3),  # 2 of 3 words on either side
        ("sat cat the", "the cat sat", 1 / 3),  # order matters within a sentence
        # Lin's example (2004, section 3.2): the union over sentences is w1 w2 w3 w5, of 5 and of 9 distinct words.
        ("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", 2 * (4 / 5) * (4 / 8) / (4 / 5 + 4 / 8)),
        ("a a a a", "a b", 2 * 1 * 0.5 / 1.5),  # repeated words count once
        ("x y", "a b", 0.0),
        ("", "a b", 0.0),
        ("...", "a b", 0.0),
        ("a b", "  ", 0.0),
    ],
)
def test_by_hand(summary: str, reference: str, expected: float) -> None:
    assert rouge_l(summary, reference) == pytest.approx(expected, abs=1e-7)


@given(st.text(alphabet="ab. \n", max_size=30), st.text(alphabet="ab. \n", max_size=30))
def test_between_nothing_and_all(summary: str, reference: str) -> None:
    assert 0 <= rouge_l(summary, reference) <= 1
