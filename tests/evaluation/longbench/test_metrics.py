"""Scores on cases worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.evaluation.longbench.metrics import (
    answer_f1,
    class_accuracy,
    code_similarity,
    number_share,
    paragraph_share,
)


@pytest.mark.parametrize(
    ("reply", "reference", "expected"),
    [
        ("The cat, sat!", "a cat sat", 1.0),  # case, articles and punctuation do not count
        ("cat", "cat dog", 2 * 1 * 0.5 / 1.5),
        ("cat cat", "cat", 2 * 0.5 * 1 / 1.5),  # each word as often as it stands
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("the", "a", 0.0),
    ],
)
def test_answers(reply: str, reference: str, expected: float) -> None:
    assert answer_f1(reply, reference) == pytest.approx(expected)


@given(st.text(max_size=40), st.text(max_size=40))
def test_answers_are_scored_alike_both_ways(reply: str, reference: str) -> None:
    assert 0 <= answer_f1(reply, reference) <= 1
    assert answer_f1(reply, reference) == pytest.approx(answer_f1(reference, reply))


CLASSES = ["Animal", "Food", "City", "Other location", "Other", "location"]


@pytest.mark.parametrize(
    ("reply", "reference", "expected"),
    [
        ("Food", "Food", 1.0),
        ("Type: Food or Animal", "Food", 0.5),
        ("Animal", "Food", 0.0),
        ("nothing", "Food", 0.0),
        # Parts of the right name do not count, but of two in a row the published scorer leaves out one alone.
        ("Other location", "Other location", 0.5),
    ],
)
def test_classes(reply: str, reference: str, expected: float) -> None:
    assert class_accuracy(reply, reference, CLASSES) == expected


def test_part_of_the_right_name() -> None:
    assert class_accuracy("Other location", "Other location", ["Other", "Food", "Other location"]) == 1.0


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("There are 17.", 1.0), ("17 of 30", 0.5), ("17, 17, 3", 2 / 3), ("170", 0.0), ("many", 0.0)],
)
def test_numbers(reply: str, expected: float) -> None:
    assert number_share(reply, "17") == pytest.approx(expected)
    assert paragraph_share(reply, "Paragraph 17") == pytest.approx(expected)


def test_an_answer_that_is_no_paragraph() -> None:
    with pytest.raises(ValueError, match="like 'Paragraph 7', got '17'"):
        paragraph_share("17", "17")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("return x", 1.0),
        ("\n\nreturn x\nmore", 1.0),
        ("# comment\n```python\nreturn x\n```", 1.0),
        ("// comment", 0.0),
        ("return y", 0.88),  # 7 of 8 characters
        ("", 0.0),
    ],
)
def test_code(reply: str, expected: float) -> None:
    assert code_similarity(reply, "return x") == pytest.approx(expected, abs=0.005)
