"""RULER's question answering: documents, among them those that answer a question, from a file the user has."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lapidist.evaluation.ruler.sample import Sample

_REPLY = 32


@dataclass(frozen=True)
class Question:
    """``documents`` are places in ``QuestionSet.documents``: those that belong to the question, and those of its
    article, which are the first to stand beside them."""

    question: str
    answers: tuple[str, ...]
    documents: tuple[int, ...]
    related: tuple[int, ...] = ()


@dataclass(frozen=True)
class QuestionSet:
    """Questions, and the documents of all of them, each once."""

    name: str
    questions: tuple[Question, ...]
    documents: tuple[str, ...]


def question_sample(rng: np.random.Generator, source: QuestionSet, units: int) -> Sample:
    """A question of the set with ``units`` documents in random order, or all if there are fewer; its own come first
    into the choice, then the related ones, then any."""
    question = source.questions[int(rng.integers(len(source.questions)))]
    related = [question.related[int(index)] for index in rng.permutation(len(question.related))]
    chosen = list(dict.fromkeys([*question.documents, *related]))
    if len(chosen) < units:
        taken = set(chosen)
        others = [index for index in range(len(source.documents)) if index not in taken]
        chosen += [others[int(index)] for index in rng.permutation(len(others))[: units - len(chosen)]]
    chosen = chosen[: max(units, len(question.documents))]
    order = [chosen[int(index)] for index in rng.permutation(len(chosen))]
    context = "\n\n".join(
        f"Document {rank}:\n{source.documents[index]}" for rank, index in enumerate(order, 1)
    )
    instruction = (
        "Answer the question based on the given documents. "
        "Only give me the answer and do not output any other words."
    )
    body = (
        f"{instruction}\n\nThe following are given documents.\n\n{context}\n\n{instruction}\n\n"
        f"Question: {question.question}"
    )
    return Sample(body, " Answer:", question.answers, _REPLY)


def read_questions(path: Path) -> QuestionSet:
    """SQuAD 2.0 (task ``qa_1``) and HotpotQA (``qa_2``) as they are published, or ``.jsonl`` with ``{"question": ...,
    "answers": [...], "documents": [...]}`` per line (a task of the file's name).

    Raises
    ------
    ValueError : the file cannot be read or is none of these; one sentence naming it, and the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise ValueError(f"{path} cannot be read: {reason}") from None
    if path.suffix.lower() == ".jsonl":
        return _from_lines(path, text)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not valid JSON (questions one a line go into a .jsonl file)") from None
    try:
        if isinstance(content, dict):
            return _squad(content)
        return _hotpotqa(content)
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} is neither SQuAD's nor HotpotQA's JSON: give one of these, or a .jsonl file with question, "
            "answers and documents per line"
        ) from None


def _squad(content: Mapping[str, Any]) -> QuestionSet:
    documents: dict[str, int] = {}
    questions = []
    for article in content["data"]:
        own = [documents.setdefault(each["context"], len(documents)) for each in article["paragraphs"]]
        for paragraph, index in zip(article["paragraphs"], own, strict=True):
            for each in paragraph["qas"]:
                answers = tuple(dict.fromkeys(answer["text"] for answer in each["answers"]))
                if answers and not each.get("is_impossible", False):
                    related = tuple(other for other in own if other != index)
                    questions.append(Question(each["question"], answers, (index,), related))
    return _complete("qa_1", questions, documents)


def _hotpotqa(content: Sequence[Mapping[str, Any]]) -> QuestionSet:
    documents: dict[str, int] = {}
    questions = []
    for each in content:
        own = (f"{title}\n{''.join(sentences)}" for title, sentences in each["context"])
        places = tuple(documents.setdefault(document, len(documents)) for document in own)
        questions.append(Question(each["question"], (each["answer"],), places))
    return _complete("qa_2", questions, documents)


def _from_lines(path: Path, text: str) -> QuestionSet:
    documents: dict[str, int] = {}
    questions = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"{where} is not valid JSON") from None
        fields: dict[str, Any] = found if isinstance(found, dict) else {}
        question, answers, own = (fields.get(name) for name in ("question", "answers", "documents"))
        if not isinstance(question, str) or not _strings(answers) or not _strings(own):
            raise ValueError(
                f'{where} must be an object with a string "question" and lists of strings "answers" and "documents"'
            )
        places = tuple(documents.setdefault(document, len(documents)) for document in own or [])
        questions.append(Question(question, tuple(answers or []), places))
    if not questions:
        raise ValueError(f"{path} has no questions")
    return QuestionSet(path.stem, tuple(questions), tuple(documents))


def _strings(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)


def _complete(name: str, questions: list[Question], documents: dict[str, int]) -> QuestionSet:
    if not questions:
        raise ValueError("no questions")
    return QuestionSet(name, tuple(questions), tuple(documents))
