"""RULER's scores by hand."""

import pytest

from lapidist.evaluation.ruler.scores import match_all, match_part
from lapidist.evaluation.ruler.tasks import score_of


@pytest.mark.parametrize(
    ("response", "outputs", "share", "part"),
    [
        (" 123 and 456.", ("123", "456"), 1.0, 1.0),
        ("It is 123", ("123", "456"), 0.5, 1.0),
        ("ANSWER", ("answer",), 1.0, 1.0),
        ("\x00an\x07swer", ("an\nswer",), 1.0, 1.0),
        ("1 2 3", ("123",), 0.0, 0.0),
        ("", ("x", "y", "z"), 0.0, 0.0),
    ],
)
def test_by_hand(response: str, outputs: tuple[str, ...], share: float, part: float) -> None:
    assert match_all(response, outputs) == share
    assert match_part(response, outputs) == part


def test_which_task_has_which() -> None:
    assert score_of("vt") is match_all
    assert score_of("niah_multivalue") is match_all
    assert score_of("qa_1") is match_part
    assert score_of("my_questions") is match_part
