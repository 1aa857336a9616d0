"""``lapidist gpu list``: the GPUs that are known, and how well their GEMMs are."""

from pathlib import Path
from typing import Annotated

import typer


def list_gpus(
    models: Annotated[
        Path | None, typer.Option(help="Models that lapidist gpu fit wrote. (default: the bundled ones)")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List the GPUs with a data sheet, and the measured GEMM kernels behind the models.

    A GPU without measurements is answered from the nearest measured one, with a wider interval.

    Example: lapidist gpu list
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from lapidist.hardware.gpu.data_sheet import data_sheet_names, load_data_sheet
    from lapidist.hardware.gpu.gemm_store import BUNDLED, GEMMModels

    sheets = [load_data_sheet(name) for name in data_sheet_names()]
    groups = GEMMModels(models or BUNDLED).groups()
    if as_json:
        content = {
            "gpus": [sheet.model_dump(mode="json") for sheet in sheets],
            "gemm_models": [group.to_dict() for group in groups],
        }
        typer.echo(json.dumps(content, indent=2))
        return
    measured = {group.gpu for group in groups}
    gpus = Table(
        "GPU",
        "SMs",
        "16-bit TFLOP/s",
        "GB",
        "GB/s",
        "L2 MiB",
        "W",
        "$/h",
        "GEMMs",
        box=None,
        padding=(0, 2, 0, 0),
    )
    for sheet in sheets:
        rate = sheet.operations_per_second(sheet.sixteen_bit) / 1e12
        gpus.add_row(
            *(sheet.name, str(sheet.sms), f"{rate:.0f}"),
            *(f"{sheet.memory_bytes / 1e9:.0f}", f"{sheet.memory_bytes_per_second / 1e9:.0f}"),
            *(f"{sheet.l2_bytes / 2**20:.0f}", f"{sheet.tdp_watts:.0f}"),
            f"{sheet.price.dollars_per_hour:.2f}" if sheet.price else "",
            "measured" if sheet.name in measured else "",
        )
    fitted = Table(
        "GPU", "format", "backend", "rows", "mean", "median", "90 %", "hold", box=None, padding=(0, 1, 0, 0)
    )
    for group in groups:
        errors = [group.errors.get(name) for name in ("mape", "median_ape", "p90_ape", "coverage")]
        cells = ("" if error is None else f"{error:.1%}" for error in errors)
        backend = f"{group.backend} {group.version}"
        fitted.add_row(group.gpu, group.dtype, backend, f"{group.rows:,}", *cells)
    for column in (*gpus.columns, *fitted.columns):
        column.no_wrap = True
    console = Console()
    console.print(gpus)
    console.print(
        "GEMM models: errors on (n, k) sites left out of a trial fit, and how often the interval holds;"
    )
    console.print(
        "'any' answers for GPUs that were not measured, judged by GPUs left out with their siblings"
    )
    console.print(fitted)
