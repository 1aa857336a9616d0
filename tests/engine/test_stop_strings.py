"""Stop strings against a naive search of the whole text, however the text is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.engine.stop_strings import StopStringMatcher

# Few letters, so that stop strings overlap, repeat and nearly match all the time.
WORDS = st.text("ab", min_size=1, max_size=6)
STOPS = st.lists(WORDS, max_size=4)
PIECES = st.lists(st.text("abc", max_size=5), max_size=12)


def search(text: str, stops: list[str]) -> tuple[int, str] | None:
    """Where the first complete stop string ends, and the longest that ends there."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return end, max(found, key=len)
    return None


@settings(max_examples=500, deadline=None)
@given(stops=STOPS, pieces=PIECES, include=st.booleans())
def test_agrees_with_a_search_of_the_whole_text(stops: list[str], pieces: list[str], include: bool) -> None:
    matcher = StopStringMatcher(stops, include)
    emitted, seen, matched = "", "", None
    expected = search("".join(pieces), stops)
    for index, piece in enumerate([*pieces, ""]):
        seen += piece
        text, matched = matcher.feed(piece, final=index == len(pieces))
        emitted += text
        if matched is not None:
            break
        # No more is held back than the longest beginning of a stop string that the text ends with.
        beginnings = {stop[:i] for stop in stops for i in range(len(stop))} if index < len(pieces) else {""}
        assert len(seen) - len(emitted) == max((len(b) for b in beginnings if seen.endswith(b)), default=0)
        assert seen.startswith(emitted)
    if expected is None:
        assert (emitted, matched) == ("".join(pieces), None)
    else:
        end, stop = expected
        assert matched == stop
        assert emitted == "".join(pieces)[: end if include else end - len(stop)]


def test_stop_string_over_several_tokens() -> None:
    matcher = StopStringMatcher(["\n\nUser:"])
    assert matcher.feed("Hello.") == ("Hello.", None)
    assert matcher.feed("\n") == ("", None)
    assert matcher.feed("\nUs") == ("", None)
    assert matcher.feed("er: and more") == ("", "\n\nUser:")


def test_what_was_held_back_comes_when_it_is_no_stop_string() -> None:
    matcher = StopStringMatcher(["###"])
    assert matcher.feed("a##") == ("a", None)
    assert matcher.feed("b#") == ("##b", None)
    assert matcher.feed("", final=True) == ("#", None)


@pytest.mark.parametrize(("include", "text"), [(False, "one "), (True, "one two")])
def test_include_stop(include: bool, text: str) -> None:
    assert StopStringMatcher(["two"], include).feed("one two three") == (text, "two")


def test_a_long_repetitive_stop_string_is_found_in_linear_time() -> None:
    # Quadratic work would be 10^10 comparisons here.
    matcher = StopStringMatcher(["a" * 50_000 + "b"])
    assert matcher.feed("a" * 200_000)[0] == "a" * 150_000
    assert matcher.feed("b")[1] is not None
