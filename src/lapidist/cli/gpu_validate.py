"""``lapidist gpu validate``: predictions beside measurements."""

from pathlib import Path
from typing import Annotated

import typer


def validate(
    data: Annotated[
        Path, typer.Argument(help="Measured GEMMs: the folder of lapidist gpu measure, Parquet or CSV.")
    ],
    gpu: Annotated[
        str | None, typer.Option(help="Predict for this GPU. (default: the one each row names)")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Format of rows that do not name one.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="Whose kernels. (default: the rows', if fitted)")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Of the backend.")] = None,
    calibrate: Annotated[
        int,
        typer.Option(help="Correct by so many random rows of each group, and judge by the others.", min=0),
    ] = 0,
    models: Annotated[
        Path | None, typer.Option(help="Models that lapidist gpu fit wrote. (default: the bundled ones)")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw errors and predicted over measured: .png, .svg or .pdf.", dir_okay=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare predicted GEMM times with the measured ones of DATA, group by group.

    Rows that a model was fitted on flatter it; lapidist gpu list shows its errors on shapes that it had not seen.

    Example: lapidist gpu validate ./my-gpu --calibrate 50 --plot errors.png
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from lapidist.hardware.gpu.gemm_store import BUNDLED
    from lapidist.hardware.gpu.gemm_validation import validate_gemms
    from lapidist.hardware.gpu.measurements import read_gemm_table

    if plot is not None:
        from lapidist.figure_file import check_plot

        check_plot(plot)
    given = {"system": gpu, "backend": backend or "unknown", "version": version or "unknown", "dtype": dtype}
    defaults = {column: value for column, value in given.items() if value is not None}
    table = read_gemm_table(data / "gemm.parquet" if data.is_dir() else data, **defaults)
    found = list(validate_gemms(table, gpu, backend, version, calibrate, models or BUNDLED))
    if as_json:
        typer.echo(json.dumps([group.to_dict() for group in found], indent=2))
    else:
        result = Table(
            "measured",
            "answered by",
            "rows",
            "mean",
            "median",
            "90 %",
            "bias",
            "holds",
            box=None,
            padding=(0, 2, 0, 0),
        )
        for group in found:
            errors = group.errors
            shares = (errors.mape, errors.median_ape, errors.p90_ape, errors.median_bias, group.coverage)
            result.add_row(
                f"{group.system} {group.backend} {group.version} {group.dtype}",
                *(group.answered_by, f"{errors.count:,}"),
                *(f"{share:.1%}" for share in shares),
            )
        console = Console()
        console.print(result)
        if calibrate:
            console.print(f"corrected by {calibrate} random rows of each group, judged by the others")
    if plot is not None:
        from lapidist.cli.gpu_validate_plot import plot_validation

        plot_validation(found, plot)
        typer.echo(f"saved {plot}", err=as_json)
