"""``lapidist cpu``: this machine's CPU as a hardware model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli import options
from lapidist.cli.progress import progress_bar

if TYPE_CHECKING:
    from lapidist.hardware.cpu.profile import CPUProfile

cpu = typer.Typer(no_args_is_help=True)


@cpu.callback()
def _cpu() -> None:
    """Measure this machine, so that plans can be made for it."""


@cpu.command()
def measure(
    model: options.Model,
    budget: Annotated[
        float,
        typer.Option(help="Seconds for the operators, roughly, and again for the engine around them.", min=1),
    ] = 60.0,
    max_context: Annotated[
        int, typer.Option(help="Longest context that attention is measured on.", min=16)
    ] = 2048,
    watts: Annotated[
        float | None, typer.Option(help="Of the processor under load, if you know it; for energy.", min=0)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write instead of the cache; plan --on FILE reads it.", dir_okay=False),
    ] = None,
) -> None:
    """Measure the operators of MODEL on this machine, and what the engine adds to them, for lapidist plan --on cpu.

    Keep the machine quiet meanwhile.

    Example: lapidist cpu measure tiny
    """
    from lapidist.bundled import resolve_model
    from lapidist.hardware.cpu.profile import write_profile
    from lapidist.models.config import ModelConfig
    from lapidist.planner.cpu_measurement import measure_cpu
    from lapidist.planner.cpu_profile_store import profile_file
    from lapidist.planner.recipes import checkpoint_recipe

    directory = resolve_model(model)
    config = ModelConfig.from_directory(directory)
    file = output or profile_file(config, checkpoint_recipe(config))
    if output is None:
        file.parent.mkdir(parents=True, exist_ok=True)
    elif not file.parent.is_dir():
        raise ValueError(f"{file}: the folder {file.parent} does not exist")
    with progress_bar() as progress:
        profile = measure_cpu(
            directory,
            model=model,
            budget_seconds=budget,
            max_context=max_context,
            watts=watts,
            progress=progress,
        )
    write_profile(profile, file)
    _print(profile)
    typer.echo(f"saved to {file}")


def _print(profile: "CPUProfile") -> None:
    """One token, a full batch and a full chunk, by operator."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from lapidist.hardware.cpu.cpu import QUIET_CORES

    table = Table("operator", "shape", "rows", "us", "GB/s", "GFLOP/s", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    # The same rows were measured in several steps; one of them is enough to look at.
    points = {(each.key, each.rows): each for each in profile.operators}
    for _, point in sorted(points.items()):
        if point.key.kind == "gemm" and point.rows in (1, 64, 512):
            shape = f"{point.key.columns} x {point.key.inputs}, {point.key.formats}"
            rates = point.bytes / point.seconds / 1e9, point.flops / point.seconds / 1e9
            table.add_row(
                "gemm",
                shape,
                str(point.rows),
                f"{1e6 * point.seconds:.0f}",
                *(f"{rate:.1f}" for rate in rates),
            )
    console = Console(highlight=False)
    console.print(f"{profile.model} on {profile.machine}")
    console.print(table)
    overhead = profile.overhead
    microseconds = {name: 1e6 * value for name, value in asdict(overhead).items()}
    console.print(
        "beside operators: {step:.0f} us per step, {sequence:.1f} us per sequence, {token:.2f} us per token; ".format(
            **microseconds
        )
        + f"operators take {overhead.slowdown:.2f} times as long in the engine"
    )
    console.print(
        "a request waits {request:.0f} us beside its steps, {wake:.0f} us more after a pause; takes {arrival:.0f} us "
        "and {arrival_token:.2f} us per token of its prompt from the steps under way".format(**microseconds)
    )
    if profile.others_cores > QUIET_CORES:
        console.print(
            f"other processes kept {profile.others_cores:.1f} cores busy meanwhile: measure again when it is quiet"
        )
