"""``lapidist gpu fit``: GEMM models from a table of measurements."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lapidist.hardware.gpu.gemm_model import GEMMGroup


def fit(
    data: Annotated[
        Path, typer.Argument(help="Measured GEMMs: the folder of lapidist gpu measure, Parquet or CSV.")
    ],
    out: Annotated[Path, typer.Argument(help="File of models to write, ending in .zip.", dir_okay=False)],
    trees: Annotated[int, typer.Option(help="Trees of a model.", min=1, max=2000)] = 200,
    leaves: Annotated[int, typer.Option(help="Leaves of a tree.", min=2, max=255)] = 255,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fit GEMM models to measurements and write them to OUT, for --models of predict, validate and list.

    Errors are those on (n, k) sites left out of a trial fit. Fewer than 100 rows are for --calibrate of predict.

    Example: lapidist gpu fit ./my-gpu my-gpu.zip
    """
    import json

    from lapidist.cli.progress import progress_bar
    from lapidist.hardware.gpu.gemm_fit import TreeSize, fit_gemm_models
    from lapidist.hardware.gpu.gemm_store import write_gemm_models
    from lapidist.hardware.gpu.measurements import read_gemm_table

    if out.suffix != ".zip" or not out.parent.is_dir():
        raise ValueError(f"{out}: a file of models ends in .zip, in a folder that exists")
    table = read_gemm_table(data / "gemm.parquet" if data.is_dir() else data)
    with progress_bar() as progress:
        pools = fit_gemm_models(table, TreeSize(trees, leaves), progress=progress)
    write_gemm_models(out, pools)
    groups = [group for pool in pools for group in pool.groups]
    if as_json:
        typer.echo(json.dumps([group.to_dict() for group in groups], indent=2))
    else:
        _print(groups)
    typer.echo(f"saved {out} ({out.stat().st_size / 1024:.0f} KiB)", err=as_json)


def _print(groups: "list[GEMMGroup]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "GPU", "format", "backend", "rows", "mean", "median", "90 %", "holds", box=None, padding=(0, 2, 0, 0)
    )
    for group in groups:
        errors = (group.errors[name] for name in ("mape", "median_ape", "p90_ape", "coverage"))
        cells = (f"{error:.1%}" for error in errors)
        table.add_row(group.gpu, group.dtype, f"{group.backend} {group.version}", f"{group.rows:,}", *cells)
    for column in table.columns:
        column.no_wrap = True
    typer.echo("errors, and how often the 90 % interval holds, on (n, k) sites left out of a trial fit")
    Console().print(table)
