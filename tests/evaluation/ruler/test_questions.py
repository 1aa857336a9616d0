"""Files of questions: the published formats and our own."""

import json
from pathlib import Path

import pytest

from lapidist.evaluation.ruler.questions import Question, read_questions

SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "A text.",
                    "qas": [
                        {
                            "question": "Q1?",
                            "answers": [{"text": "a"}, {"text": "b"}, {"text": "a"}],
                            "is_impossible": False,
                        },
                        {"question": "Q2?", "answers": [], "is_impossible": True},
                    ],
                },
                {"context": "Another.", "qas": []},
            ]
        },
        {"paragraphs": [{"context": "A text.", "qas": [{"question": "Q3?", "answers": [{"text": "c"}]}]}]},
    ]
}
HOTPOTQA = [
    {"question": "Q?", "answer": "yes", "context": [["T1", ["One. ", "Two."]], ["T2", ["Three."]]]},
    {"question": "R?", "answer": "no", "context": [["T2", ["Three."]]]},
]


def test_squad(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(json.dumps(SQUAD))
    found = read_questions(tmp_path / "dev.json")
    assert found.name == "qa_1"
    assert found.documents == ("A text.", "Another.")
    assert found.questions == (Question("Q1?", ("a", "b"), (0,), (1,)), Question("Q3?", ("c",), (0,)))


def test_hotpotqa(tmp_path: Path) -> None:
    (tmp_path / "hotpot.json").write_text(json.dumps(HOTPOTQA))
    found = read_questions(tmp_path / "hotpot.json")
    assert found.name == "qa_2"
    assert found.documents == ("T1\nOne. Two.", "T2\nThree.")
    assert found.questions[1] == Question("R?", ("no",), (1,))


def test_our_own(tmp_path: Path) -> None:
    lines = [{"question": "Q?", "answers": ["a"], "documents": ["one", "two"]}] * 2
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    found = read_questions(tmp_path / "mine.jsonl")
    assert (found.name, found.documents) == ("mine", ("one", "two"))
    assert found.questions == (Question("Q?", ("a",), (0, 1)),) * 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "{", "is not valid JSON"),
        ("x.json", "3", "neither SQuAD's nor HotpotQA's"),
        ("x.json", "{}", "neither SQuAD's nor HotpotQA's"),
        ("x.json", "[]", "neither SQuAD's nor HotpotQA's"),
        ("x.json", '[{"question": 1}]', "neither SQuAD's nor HotpotQA's"),
        ("x.jsonl", "\n", "has no questions"),
        ("x.jsonl", "{}", "line 1 must be an object"),
        ("x.jsonl", '{"question": "q", "answers": [], "documents": ["d"]}', "line 1 must be an object"),
        ("x.jsonl", "\n[1", "line 2 is not valid JSON"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_questions(tmp_path / name)
    assert name in str(error.value)


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        read_questions(tmp_path / "absent.json")
