"""``lapidist gpu``: what work would cost on a GPU, and where the numbers come from."""

import typer

from lapidist.cli.gpu_measure import measure
from lapidist.cli.gpu_occupancy import occupancy
from lapidist.cli.gpu_reproduce import reproduce

gpu = typer.Typer(no_args_is_help=True)


@gpu.callback()
def _gpu() -> None:
    """Predict time, power and energy of operators on GPUs."""


gpu.command()(measure)
gpu.command()(occupancy)
gpu.command()(reproduce)
