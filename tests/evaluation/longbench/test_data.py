"""LongBench's files, sound and broken."""

import json
from pathlib import Path

import pytest

from lapidist.evaluation.longbench.data import present_tasks, read_task
from lapidist.evaluation.longbench.tasks import TASKS
from tests.evaluation.longbench.sample_data import write_sample


def test_reading(tmp_path: Path) -> None:
    write_sample(tmp_path / "data")  # the archive has a folder of that name
    assert present_tasks(tmp_path) == present_tasks(tmp_path / "data") == tuple(TASKS)
    examples = read_task(tmp_path, "trec")
    assert len(examples) == 3
    assert examples[0].answers == ("Food", "Food")
    assert examples[0].classes == ("Food", "Animal")
    assert read_task(tmp_path, "hotpotqa", limit=2) == read_task(tmp_path, "hotpotqa")[:2]


def test_directories_without_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent is no directory"):
        present_tasks(tmp_path / "absent")
    with pytest.raises(ValueError, match="has none of LongBench's files"):
        present_tasks(tmp_path)
    with pytest.raises(ValueError, match=r"has no trec\.jsonl"):
        read_task(tmp_path, "trec")


GOOD = {"input": "q", "context": "c", "answers": ["a"]}


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("hotpotqa", "{", "line 2 is not valid JSON"),
        ("hotpotqa", "[" * 100_000, "line 2 is not valid JSON"),
        ("hotpotqa", json.dumps([GOOD]), "line 2 must be an object"),
        ("hotpotqa", json.dumps(GOOD | {"context": 3}), 'strings "context" and "input"'),
        ("hotpotqa", json.dumps(GOOD | {"answers": []}), 'list of strings "answers"'),
        ("hotpotqa", json.dumps(GOOD | {"answers": "a"}), 'list of strings "answers"'),
        ("hotpotqa", json.dumps(GOOD | {"all_classes": "a"}), 'line 2: "all_classes" must be'),
        ("trec", json.dumps(GOOD), 'line 2: classification needs "all_classes"'),
        ("passage_retrieval_en", json.dumps(GOOD), 'line 2: answers must be like "Paragraph 7"'),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, task: str, line: str, message: str) -> None:
    first = GOOD | {"all_classes": ["a"], "answers": ["Paragraph 1"]}
    (tmp_path / f"{task}.jsonl").write_text(f"{json.dumps(first)}\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_task(tmp_path, task)


def test_broken_files(tmp_path: Path) -> None:
    (tmp_path / "qasper.jsonl").write_text("\n \n")
    with pytest.raises(ValueError, match=r"qasper\.jsonl has no examples"):
        read_task(tmp_path, "qasper")
    (tmp_path / "qasper.jsonl").write_bytes(b'{"input": "\xff"}')
    with pytest.raises(ValueError, match=r"qasper\.jsonl: not UTF-8"):
        read_task(tmp_path, "qasper")
