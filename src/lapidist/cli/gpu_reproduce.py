"""``lapidist gpu reproduce``: the Ada study's table again, its model under other splits, and ours beside it."""

from pathlib import Path
from typing import Annotated

import typer


def reproduce(
    data: Annotated[
        Path, typer.Argument(help="Folder with the study's measurements (GPPerf).", metavar="DATA_DIR")
    ],
    plots: Annotated[
        Path | None, typer.Option(help="Draw five PNGs into this folder.", file_okay=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Redo the study of GEMM time and power on an RTX 4070 (arXiv 2411.16954) from its measurements.

    Shows the published numbers with the published split, what becomes of them when shapes are held out, what the power
    readings are of, and how far Lapidist's wave law with a Gaussian process gets on the same rows. Takes a minute.

    Example: lapidist gpu reproduce ~/gpperf --plots out/ada
    """
    import json

    from lapidist.cli.gpu_reproduce_report import print_study, to_json
    from lapidist.cli.progress import progress_bar
    from lapidist.hardware.gpu.ada_data import read_ada_data
    from lapidist.hardware.gpu.ada_study import run_ada_study

    measurements = read_ada_data(data)
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
    with progress_bar() as progress:
        study = run_ada_study(measurements, progress)
    if as_json:
        typer.echo(json.dumps(to_json(study), indent=2))
    else:
        print_study(study)
    if plots is not None:
        from lapidist.cli.gpu_reproduce_plots import draw_study

        for file in draw_study(study, plots):
            typer.echo(f"saved {file}", err=as_json)
