"""``lapidist wafer reproduce``: the paper's tables beside the model."""

from typing import Annotated

import typer

from lapidist.cli.wafer_options import AsJson, Picture, check_pictures


def reproduce(
    table: Annotated[int | None, typer.Option(help="One table only.", min=2, max=8)] = None,
    plot: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Tables 2 to 8 of WaferLLM (arXiv 2502.04563) beside ours, the error of each cell, and contradictions in them.

    Example: lapidist wafer reproduce --table 3
    """
    import json

    from lapidist.cli.wafer_plot import plot_reproduction
    from lapidist.cli.wafer_report import print_reproduction
    from lapidist.hardware.wafer.contradictions import found_contradictions
    from lapidist.hardware.wafer.reproduction import not_modelled
    from lapidist.hardware.wafer.reproduction import reproduce as all_cells

    check_pictures(plot)
    everything = all_cells()
    cells = [cell for cell in everything if table in (None, cell.table)]
    found = found_contradictions(everything) if table is None else []
    missing = not_modelled() if table is None else {}
    if as_json:
        rows = [
            {
                "table": cell.table, "row": cell.row, "column": cell.column, "unit": cell.unit,
                "published": cell.published, "ours": cell.ours, "error": cell.error, "how": cell.how,
            }
            for cell in cells
        ]  # fmt: skip
        contradictions = [{"where": each.where, "says": each.says, "but": each.but} for each in found]
        typer.echo(
            json.dumps({"cells": rows, "contradictions": contradictions, "not_modelled": missing}, indent=2)
        )
    else:
        print_reproduction(cells, found, missing)
    if plot is not None:
        plot_reproduction(cells, plot)
