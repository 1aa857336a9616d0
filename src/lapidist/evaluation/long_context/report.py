"""Results of an evaluation of long prompts for people (tables) and for programs (JSON)."""

import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from lapidist.evaluation.long_context.result import Evaluation, MethodResult

_WIDEST_LABEL = 24


def print_methods(results: Sequence[MethodResult], console: Console, rows: str) -> None:
    """A line per method: mean, mean of each length, and share of the prompt kept. One method alone has a line per
    ``rows``."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(rows if len(results) == 1 else "method", overflow="fold")
    for column in (*results[0].columns, "mean"):
        table.add_column(f"{int(column):,}" if column.isdecimal() else column, justify="right", no_wrap=True)
    if len(results) == 1:
        for name, scores in zip(results[0].rows, results[0].grid, strict=True):
            table.add_row(name, *_percent([*scores, scores.mean()]))
        table.add_section()
        table.add_row("mean", *_percent([*results[0].grid.mean(0), results[0].mean]))
    else:
        table.add_column("kept", justify="right", no_wrap=True)
        for result in results:
            scores = [*result.grid.mean(0), result.mean]
            table.add_row(result.method.label, *_percent(scores), f"{result.kept:.1%}")
    console.print(table)


def print_rows(results: Sequence[MethodResult], console: Console, rows: str) -> None:
    """A line per row (task, depth), a column per method, means over the lengths; several tables if one is too wide."""
    names = results[0].rows
    room = console.width - max(map(len, (*names, rows)))
    group: list[MethodResult] = []
    taken = 0
    for result in results:
        width = min(len(result.method.label), _WIDEST_LABEL) + 3
        if group and taken + width > room:
            console.print(_rows_table(group, rows))
            group, taken = [], 0
        group.append(result)
        taken += width
    console.print(_rows_table(group, rows))


def _rows_table(results: Sequence[MethodResult], rows: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(rows, no_wrap=True)
    for result in results:
        width = min(len(result.method.label), _WIDEST_LABEL)
        table.add_column(result.method.label, justify="right", overflow="fold", min_width=width)
    for index, name in enumerate(results[0].rows):
        table.add_row(name, *_percent([result.grid[index].mean() for result in results]))
    table.add_section()
    table.add_row("mean", *_percent([result.mean for result in results]))
    return table


def _percent(values: Sequence[float]) -> list[str]:
    return [f"{100 * value:.1f}" for value in values]


def to_json(evaluation: Evaluation) -> str:
    """Settings, and for each method its filter, mean, grid and every reply."""
    content = {
        "evaluation": evaluation.name,
        "settings": dict(evaluation.settings),
        "notes": list(evaluation.notes),
        "methods": [method_fields(result) for result in evaluation.results],
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def method_fields(result: MethodResult, with_replies: bool = True) -> dict[str, Any]:
    """One method's part of the JSON; ``grid`` is ``[rows][columns]``, scores are 0 to 1."""
    grid = result.grid
    fields: dict[str, Any] = {
        "method": result.method.label,
        "prompt_filter": result.method.describe(),
        "mean": result.mean,
        "kept_share": result.kept,
        "bypassed": result.bypassed,
        "rows": list(result.rows),
        "columns": list(result.columns),
        "grid": grid.tolist(),
        "row_means": dict(zip(result.rows, grid.mean(1).tolist(), strict=True)),
        "column_means": dict(zip(result.columns, grid.mean(0).tolist(), strict=True)),
    }
    if with_replies:
        fields["replies"] = {
            column: [
                {
                    "row": each.row,
                    "score": each.score,
                    "response": each.response,
                    "expected": list(each.expected),
                    "prompt_tokens": each.prompt_tokens,
                    "kept_tokens": each.kept_tokens,
                }
                for each in outcomes
            ]
            for column, outcomes in result.outcomes.items()
        }
    return fields
