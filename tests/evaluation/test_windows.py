"""Windows: what they hold, what they score, and that nothing is scored twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.evaluation.text import TokenizedText
from lapidist.evaluation.windows import Window, cut

BOS = 1000


def text_of(count: int, opening: tuple[int, ...] = (BOS,)) -> TokenizedText:
    """Tokens that are their own positions, the byte counts of which are 3, 4, 5, ..."""
    return TokenizedText(opening, list(range(count)), [position + 3 for position in range(count)])


def scored(windows: list[Window]) -> list[int]:
    return [token for window in windows for token in window.token_ids[window.first_scored :]]


def test_published_windows() -> None:
    windows = cut(text_of(9), context=16, size=4)
    assert [window.token_ids for window in windows] == [[BOS, 0, 1, 2], [3, 4, 5, 6], [7, 8]]
    assert [window.first_scored for window in windows] == [1, 1, 1]
    assert scored(windows) == [0, 1, 2, 4, 5, 6, 8]
    assert [window.byte_count for window in windows] == [3 + 4 + 5, 7 + 8 + 9, 11]
    assert [window.is_full for window in windows] == [True, True, False]


def test_each_window_opened() -> None:
    windows = cut(text_of(7), context=16, size=4, open_each=True)
    assert [window.token_ids for window in windows] == [[BOS, 0, 1, 2], [BOS, 3, 4, 5], [BOS, 6]]
    assert scored(windows) == list(range(7))


def test_overlapping_windows_score_what_is_new() -> None:
    windows = cut(text_of(9, opening=()), context=16, size=4, stride=2)
    assert [window.token_ids for window in windows] == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8]]
    assert [window.first_scored for window in windows] == [1, 2, 2, 2]


def test_a_last_token_without_context_is_no_window() -> None:
    assert [window.token_ids for window in cut(text_of(5, ()), context=4)] == [[0, 1, 2, 3]]


@pytest.mark.parametrize(("context", "size"), [(64, 64), (4096, 2048)])
def test_default_size(context: int, size: int) -> None:
    assert len(cut(text_of(5000), context)[0].token_ids) == size


@given(st.data())
def test_every_token_with_context_is_scored_once(data: st.DataObject) -> None:
    opened = data.draw(st.booleans())
    opening = (BOS,) if opened or data.draw(st.booleans()) else ()
    count, size = data.draw(st.integers(2, 60)), data.draw(st.integers(2, 20))
    stride = data.draw(st.integers(1, size - opened) | st.none())
    windows = cut(text_of(count, opening), 20, size, stride, opened)
    missing = set(range(count)) - set(scored(windows))
    assert len(scored(windows)) == len(set(scored(windows)))
    assert sum(window.byte_count for window in windows) == sum(token + 3 for token in scored(windows))
    assert all(len(window.token_ids) == size for window in windows if window.is_full)
    assert all(1 <= window.first_scored < len(window.token_ids) <= size for window in windows)
    assert all(window.is_full for window in windows[:-1])
    if opened or (stride is not None and stride < size and opening):
        assert not missing
    elif stride in (None, size):  # each window's first token has nothing before it
        assert missing == {token for token in range(count) if (token + len(opening)) % size == 0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 17}, "window must be from 2 to the model's 16 tokens, got 17"),
        ({"size": 1}, "window must be from 2 to"),
        ({"size": 4, "stride": 5}, "stride must be from 1 to the 4 text tokens of a window, got 5"),
        ({"size": 4, "stride": 4, "open_each": True}, "stride must be from 1 to the 3 text tokens"),
        ({"stride": 0}, "stride must be from 1"),
    ],
)
def test_what_cannot_be_cut(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cut(text_of(30), 16, **options)


def test_no_token_to_open_with() -> None:
    with pytest.raises(ValueError, match="sets no beginning-of-text token"):
        cut(text_of(30, ()), 16, open_each=True)
