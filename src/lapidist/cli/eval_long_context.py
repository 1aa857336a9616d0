"""What the commands that evaluate long prompts print and write."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lapidist.evaluation.long_context.evaluation_run import EvaluationRun
    from lapidist.evaluation.long_context.result import Evaluation


@contextmanager
def evaluation_run(
    model: str, methods: str, keep: str | None, results: Path | None, dtype: str, device: str
) -> "Iterator[EvaluationRun]":
    """What is evaluated, with a progress bar.

    Raises
    ------
    ValueError : there is no such method or option, or ``keep`` is no share and no number of tokens.
    """
    from lapidist.bundled import resolve_model
    from lapidist.cli.progress import progress_bar
    from lapidist.evaluation.long_context.evaluation_run import EvaluationRun
    from lapidist.evaluation.long_context.methods import parse_keep, parse_methods

    chosen = parse_methods(methods, None if keep is None else parse_keep(keep))
    with progress_bar() as progress:
        yield EvaluationRun(resolve_model(model), chosen, results, dtype, device, progress)


def present(evaluation: "Evaluation", row: str, json_file: str | None, plot: Path | None, title: str) -> None:
    """Tables for people, and what was asked for beside them."""
    from rich.console import Console

    from lapidist.evaluation.long_context.heat_map import plot_heat_maps
    from lapidist.evaluation.long_context.report import print_methods, print_rows, to_json
    from lapidist.evaluation.serving.report import write_json

    console = Console(stderr=json_file == "-")
    print_methods(evaluation.results, console, row)
    if len(evaluation.results) > 1:
        print_rows(evaluation.results, console, row)
    for note in evaluation.notes:
        console.print(note, highlight=False, markup=False)
    if json_file == "-":
        typer.echo(to_json(evaluation))
    elif json_file is not None:
        write_json(Path(json_file), to_json(evaluation))
    if plot is not None:
        plot_heat_maps(evaluation.results, plot, title, row)
