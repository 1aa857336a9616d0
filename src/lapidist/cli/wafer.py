"""``lapidist wafer``: inference on wafer-scale meshes of cores, costed and compared with what was published."""

import typer

from lapidist.cli.wafer_calibrate import calibrate
from lapidist.cli.wafer_contest import gemm, gemv
from lapidist.cli.wafer_llm import llm
from lapidist.cli.wafer_reproduce import reproduce
from lapidist.cli.wafer_run import run

wafer = typer.Typer(no_args_is_help=True)


@wafer.callback()
def _wafer() -> None:
    """Predict cycles, time and energy of products and whole models on wafer-scale meshes of cores."""


wafer.command()(gemm)
wafer.command()(gemv)
wafer.command()(llm)
wafer.command()(run)
wafer.command()(calibrate)
wafer.command()(reproduce)
