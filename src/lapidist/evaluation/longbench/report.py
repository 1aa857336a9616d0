"""LongBench's scores for people and for programs."""

import json
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from lapidist.evaluation.long_context.report import method_fields
from lapidist.evaluation.long_context.result import Evaluation, MethodResult
from lapidist.evaluation.longbench.evaluation import average, category_average, task_scores


def print_longbench(results: Sequence[MethodResult], console: Console) -> None:
    """A line per task, a column per method, then the averages."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task")
    for result in results:
        table.add_column(result.method.label, justify="right", overflow="fold")
    scores = [task_scores(result) for result in results]
    for task in results[0].columns:
        table.add_row(task, *(f"{own[task]:.2f}" for own in scores))
    table.add_section()
    table.add_row("average", *(f"{average(own):.2f}" for own in scores))
    table.add_row("of categories", *(f"{category_average(own):.2f}" for own in scores))
    table.add_row("kept", *(f"{result.kept:.1%}" for result in results))
    console.print(table)


def longbench_json(evaluation: Evaluation) -> str:
    """Settings, and for each method its scores in percent and every reply."""
    content = {
        "evaluation": evaluation.name,
        "settings": dict(evaluation.settings),
        "notes": list(evaluation.notes),
        "methods": [_fields(result) for result in evaluation.results],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _fields(result: MethodResult) -> dict[str, object]:
    scores = task_scores(result)
    return {
        "scores": scores,
        "average": round(average(scores), 2),
        "category_average": round(category_average(scores), 2),
        **method_fields(result),
    }
