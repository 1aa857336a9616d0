"""As many units as fit, in few tries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.evaluation.ruler.fitting import most_that_fit


@given(
    slope=st.integers(1, 60),
    offset=st.integers(0, 500),
    fewest=st.integers(0, 20),
    room=st.integers(0, 200_000),
    wobble=st.integers(0, 8),
    most=st.none() | st.integers(20, 5000),
)
def test_the_largest_count_in_few_tries(
    slope: int, offset: int, fewest: int, room: int, wobble: int, most: int | None
) -> None:
    tries: list[int] = []

    def tokens(count: int) -> int:
        tries.append(count)
        return offset + slope * count + min(wobble * (count % 3), slope - 1) // 2

    if tokens(fewest) > room:
        with pytest.raises(ValueError, match="at least"):
            most_that_fit(tokens, room, fewest, most)
        return
    found = most_that_fit(tokens, room, fewest, most)
    assert tokens(found) <= room
    assert found == most or tokens(found + 1) > room
    assert found >= fewest
    assert most is None or max(tries[:-2]) <= most + 1
    assert len(tries) < 40


def test_steps_that_add_nothing() -> None:
    assert most_that_fit(lambda count: count // 10, 7, 0) == 79
