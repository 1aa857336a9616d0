"""LongBench's files as they are distributed: ``TASK.jsonl``, one example per line."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapidist.evaluation.longbench.tasks import TASKS
from lapidist.workload.text_files import read_lines


@dataclass(frozen=True)
class Example:
    """One line: ``input`` is the question, if there is one; ``classes`` are those of a classification task."""

    context: str
    input: str
    answers: tuple[str, ...]
    classes: tuple[str, ...]


def read_task(directory: Path, task: str, limit: int | None = None) -> list[Example]:
    """The first ``limit`` examples of ``DIRECTORY/TASK.jsonl`` or ``DIRECTORY/data/TASK.jsonl``.

    Raises
    ------
    ValueError : the file is absent or a line is not as it should be; one sentence naming it.
    """
    file = _file(directory, task)
    if file is None:
        raise ValueError(
            f"{directory} has no {task}.jsonl: name the folder that LongBench's data.zip unpacks to"
        )
    examples: list[Example] = []
    for number, line in enumerate(read_lines(file), 1):
        if limit is not None and len(examples) >= limit:
            break
        if line.strip():
            examples.append(_example(line, task, f"{file}, line {number}"))
    if not examples:
        raise ValueError(f"{file} has no examples")
    return examples


def present_tasks(directory: Path) -> tuple[str, ...]:
    """The tasks whose files are there.

    Raises
    ------
    ValueError : none is, or there is no such directory.
    """
    if not directory.is_dir():
        raise ValueError(f"{directory} is no directory: name the folder that LongBench's data.zip unpacks to")
    found = tuple(task for task in TASKS if _file(directory, task) is not None)
    if not found:
        raise ValueError(
            f"{directory} has none of LongBench's files, such as hotpotqa.jsonl: name the folder that its data.zip "
            "unpacks to"
        )
    return found


def _file(directory: Path, task: str) -> Path | None:
    places = (directory / f"{task}.jsonl", directory / "data" / f"{task}.jsonl")
    return next((place for place in places if place.is_file()), None)


def _example(line: str, task: str, where: str) -> Example:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"{where} is not valid JSON") from None
    fields: dict[str, Any] = found if isinstance(found, dict) else {}
    context, question, answers = fields.get("context"), fields.get("input", ""), fields.get("answers")
    if not isinstance(context, str) or not isinstance(question, str) or not _strings(answers):
        raise ValueError(
            f'{where} must be an object with strings "context" and "input" and a list of strings "answers"'
        )
    classes = fields.get("all_classes")
    if classes is None:
        classes = []
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise ValueError(f'{where}: "all_classes" must be a list of strings or null')
    if task == "trec" and not classes:
        raise ValueError(f'{where}: classification needs "all_classes"')
    if task == "passage_retrieval_en" and not all(each.startswith("Paragraph ") for each in answers or []):
        raise ValueError(f'{where}: answers must be like "Paragraph 7"')
    return Example(context, question, tuple(answers or []), tuple(classes))


def _strings(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
