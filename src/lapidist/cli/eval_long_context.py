"""What the commands that evaluate long prompts print and write."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lapidist.evaluation.long_context.methods import Method
    from lapidist.evaluation.long_context.result import Evaluation


def chosen_methods(given: str, keep: str | None) -> "list[Method]":
    """
    Raises
    ------
    ValueError : there is no such method or option, or ``keep`` is no share and no number of tokens.
    """
    from lapidist.evaluation.long_context.methods import parse_keep, parse_methods

    return parse_methods(given, None if keep is None else parse_keep(keep))


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
