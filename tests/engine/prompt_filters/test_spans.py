"""Runs of kept tokens."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lapidist.engine.prompt_filters.spans import runs


@given(st.sets(st.integers(0, 60)).map(sorted))
def test_runs_cover_the_places_and_are_as_long_as_can_be(places: list[int]) -> None:
    found = list(runs(places))
    assert [place for start, end in found for place in range(start, end)] == places
    assert all(first[1] < second[0] for first, second in pairwise(found))
