"""``lapidist gpu``: what work would cost on a GPU, and where the numbers come from."""

import typer

from lapidist.cli.gpu_fit import fit
from lapidist.cli.gpu_list import list_gpus
from lapidist.cli.gpu_measure import measure
from lapidist.cli.gpu_occupancy import occupancy
from lapidist.cli.gpu_predict import predict
from lapidist.cli.gpu_predict_attention import predict_attention
from lapidist.cli.gpu_reproduce import reproduce
from lapidist.cli.gpu_validate import validate

gpu = typer.Typer(no_args_is_help=True)


@gpu.callback()
def _gpu() -> None:
    """Predict time, power and energy of operators on GPUs."""


gpu.command("list")(list_gpus)
gpu.command()(predict)
gpu.command("predict-attention")(predict_attention)
gpu.command()(measure)
gpu.command()(fit)
gpu.command()(validate)
gpu.command()(occupancy)
gpu.command()(reproduce)
