"""``lapidist eval longbench``: LongBench's tasks from a local directory, method by method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lapidist.evaluation.long_context.case import Case
from lapidist.evaluation.long_context.evaluation_run import EvaluationRun
from lapidist.evaluation.long_context.result import Evaluation, MethodResult
from lapidist.evaluation.longbench.data import Example, present_tasks, read_task
from lapidist.evaluation.longbench.prompts import prompt_tokens
from lapidist.evaluation.longbench.tasks import GEMFILTER_TASKS, TASKS, LongBenchTask
from lapidist.models.tokenizer import Tokenizer

PUBLISHED_MAX_TOKENS = 128_000
"""Of a prompt in GemFilter's table."""

_FEWEST_PROMPT_TOKENS = 64


@dataclass(frozen=True)
class LongBenchSettings:
    """What is asked.

    Attributes
    ----------
    data : directory of ``TASK.jsonl`` files.
    tasks : None is those of GemFilter's fourteen whose files are there.
    limit : examples of each task; None is all.
    max_tokens : of a prompt; None is 128,000 or what the context has beside the reply.
    chat : in the model's chat template, few-shot tasks and code excepted. GemFilter's table is without.
    """

    data: Path
    tasks: tuple[str, ...] | None = None
    limit: int | None = None
    max_tokens: int | None = None
    chat: bool = False


def evaluate_longbench(run: EvaluationRun, settings: LongBenchSettings) -> Evaluation:
    """Scores of every method, a column per task.

    Raises
    ------
    ValueError : there is no such task, its file is absent or broken, ``max_tokens`` does not suit the model, or as
        ``EvaluationRun.evaluate``.
    ChatTemplateError : ``chat`` is wanted, and the checkpoint has no usable template.
    """
    found = present_tasks(settings.data)
    tasks = settings.tasks or tuple(task for task in GEMFILTER_TASKS if task in found) or found
    if unknown := next((task for task in tasks if task not in TASKS), None):
        raise ValueError(f"there is no task {unknown!r}: name some of {', '.join(TASKS)}")
    examples = {task: read_task(settings.data, task, settings.limit) for task in tasks}
    rooms = {task: _prompt_room(run.context, TASKS[task], settings.max_tokens, task) for task in tasks}
    described = {
        "chat_template": settings.chat,
        "max_prompt_tokens": settings.max_tokens or min(PUBLISHED_MAX_TOKENS, run.context),
        "examples_per_task": settings.limit,
        "data": settings.data.name,
    }
    return run.evaluate(
        "longbench",
        described,
        tasks,
        lambda task: longbench_cases(TASKS[task], examples[task], run.tokenizer, rooms[task], settings.chat),
        longest=max(rooms[task] + TASKS[task].max_new_tokens for task in tasks),
        notes=_notes(tasks, settings.chat),
    )


def _prompt_room(context: int, task: LongBenchTask, max_tokens: int | None, name: str) -> int:
    """The most tokens of a prompt."""
    room = context - task.max_new_tokens
    if room < _FEWEST_PROMPT_TOKENS:
        raise ValueError(
            f"a context of {context} tokens is too short for task {name}, whose replies have {task.max_new_tokens}"
        )
    if max_tokens is None:
        return min(PUBLISHED_MAX_TOKENS, room)
    if max_tokens < _FEWEST_PROMPT_TOKENS:
        raise ValueError(f"prompts need at least {_FEWEST_PROMPT_TOKENS} tokens, got {max_tokens}")
    return min(max_tokens, room)


def longbench_cases(
    task: LongBenchTask, examples: Sequence[Example], tokenizer: Tokenizer, max_tokens: int, chat: bool
) -> list[Case]:
    """One per example."""
    return [
        Case(
            "score",
            prompt_tokens(task, example, tokenizer, max_tokens, chat),
            task.max_new_tokens,
            example.answers,
            partial(_best_score, task, example.classes),
        )
        for example in examples
    ]


def _best_score(task: LongBenchTask, classes: Sequence[str], reply: str, answers: Sequence[str]) -> float:
    """Against the answer that suits best."""
    if task.first_line_only:
        reply = reply.lstrip("\n").split("\n")[0]
    return max(task.metric(reply, answer, classes) for answer in answers)


def task_scores(result: MethodResult) -> dict[str, float]:
    """Percent by task, rounded to two decimals as published."""
    return {
        task: round(100 * float(np.mean([each.score for each in outcomes])), 2)
        for task, outcomes in result.outcomes.items()
    }


def average(scores: Mapping[str, float]) -> float:
    """Mean over tasks, as in GemFilter's table."""
    return sum(scores.values()) / len(scores)


def category_average(scores: Mapping[str, float]) -> float:
    """Mean of the means of the categories, as FastKV has it (arXiv 2502.01068)."""
    categories = {TASKS[task].category for task in scores}
    means = [
        np.mean([score for task, score in scores.items() if TASKS[task].category == category])
        for category in categories
    ]
    return float(np.mean(means))


def _notes(tasks: Sequence[str], chat: bool) -> tuple[str, ...]:
    frame = (
        "In the chat template (few-shot tasks and code without it)." if chat else "Without a chat template."
    )
    absent = [task for task in GEMFILTER_TASKS if task not in tasks]
    if not absent:
        return (frame,)
    return (frame, f"Not measured: {', '.join(absent)}.")
