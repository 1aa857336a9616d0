"""Choosing places by score, and what each policy changes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lapidist.engine.prompt_filters.selection import kept_tokens, select

SCORES = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60)


@given(SCORES, st.integers(1, 80))
def test_the_highest_scores_in_order(scores: list[float], count: int) -> None:
    places = select(torch.tensor(scores), count).tolist()
    expected = sorted(sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:count])
    assert places == expected
    assert len(places) == min(count, len(scores))


@given(SCORES, st.integers(1, 80), st.integers(0, 20), st.integers(0, 20))
def test_forced_ends_take_the_place_of_the_lowest(
    scores: list[float], count: int, first: int, last: int
) -> None:
    tensor = torch.tensor(scores)
    count = min(count, len(scores))
    plain = select(tensor, count).tolist()
    forced = select(tensor, count, first, last).tolist()
    assert len(forced) == len(set(forced)) == count
    kept_first = min(first, count)
    kept_last = min(last, count - kept_first)
    ends = {*range(kept_first), *range(len(scores) - kept_last, len(scores))}
    assert ends <= set(forced)
    # What else is kept are the best of the plain choice: nothing new comes in but the ends.
    assert set(forced) - ends <= set(plain)
    dropped = set(plain) - set(forced)
    rest = set(forced) - ends
    assert all(
        scores[lost] <= min((scores[place] for place in rest), default=float("inf")) for lost in dropped
    )


def test_forced_ends_change_exactly_these_places() -> None:
    scores = torch.tensor([0.0, 1, 9, 8, 7, 6, 5, 2])
    assert select(scores, 4).tolist() == [2, 3, 4, 5]
    assert select(scores, 4, first=1).tolist() == [0, 2, 3, 4]
    assert select(scores, 4, last=1).tolist() == [2, 3, 4, 7]
    assert select(scores, 4, first=1, last=1).tolist() == [0, 2, 3, 7]
    assert select(scores, 2, first=3, last=3).tolist() == [0, 1]


def test_chunks_change_exactly_these_places() -> None:
    scores = torch.tensor([9.0, 0, 0, 5, 5, 5, 4, 4, 4, 1])
    assert select(scores, 4).tolist() == [0, 3, 4, 5]
    # Means of the runs of three: 3, 5, 4, 1.
    assert select(scores, 4, chunk=3).tolist() == [3, 4, 5, 9]
    assert select(scores, 6, chunk=3).tolist() == [3, 4, 5, 6, 7, 8]
    assert select(scores, 6, first=1, chunk=3).tolist() == [0, 1, 2, 3, 4, 5]


@given(SCORES, st.integers(1, 80), st.integers(2, 9))
def test_chunks_are_whole(scores: list[float], count: int, chunk: int) -> None:
    places = set(select(torch.tensor(scores), count, chunk=chunk).tolist())
    assert len(places) <= min(count, len(scores))
    for start in range(0, len(scores), chunk):
        run = set(range(start, min(start + chunk, len(scores))))
        assert run <= places or not run & places


@pytest.mark.parametrize(
    ("keep", "tokens", "expected"),
    [
        (10, 100, 10),
        (10, 5, 5),
        (0.1, 1001, 101),
        (1.0, 77, 77),
        (None, 5000, 1024),
        (None, 50, 50),
        (0.001, 5, 1),
    ],
)
def test_kept_tokens(keep: int | float | None, tokens: int, expected: int) -> None:
    assert kept_tokens(keep, tokens) == expected
