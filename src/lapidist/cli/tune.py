"""``lapidist tune``: measures which implementation of the linear layers is fastest on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from lapidist.cli.tune_report import TuneReport
    from lapidist.kernels.tune import Progress
    from lapidist.models.config import ModelConfig

_DEFAULT_SHAPE = "llama-3.2-1b"
_GOAL = 0.05


def tune(
    model: Annotated[
        str | None, typer.Argument(help="Checkpoint directory, or 'tiny': only its config.json is read.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help=f"A public shape instead; make-checkpoint --list shows them. (default: {_DEFAULT_SHAPE})",
            metavar="SHAPE",
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            help="auto (the checkpoint's), float32, bfloat16 or float16; may be given several times.",
            metavar="DTYPE",
        ),
    ] = None,
    max_rows: Annotated[
        int, typer.Option(help="Measure from 1 to so many tokens in a batch.", min=1, max=4096)
    ] = 64,
    budget: Annotated[
        float, typer.Option(help="Seconds to spend, roughly; large weights can take some more.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw time over tokens: .png, .svg or .pdf.", dir_okay=False)
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Measure again, change nothing, and tell what the stored table loses (status 1: > 5 %).",
        ),
    ] = False,
) -> None:
    """Measure the linear layers of MODEL on this machine and store which implementation is fastest when.

    The table is found again when a model is loaded. Keep the machine quiet meanwhile.

    Example: lapidist tune /models/llama-3.2-1b

    Example: lapidist tune --like llama-3-8b --dtype bfloat16 --dtype float32 --plot tuning.png
    """
    from lapidist.cli.tune_plot import plot_tuning
    from lapidist.cli.tune_report import print_regret, print_report, to_json
    from lapidist.figure_file import check_plot
    from lapidist.kernels.dispatch_regret import regret

    if model is not None and like is not None:
        raise typer.BadParameter("name either a MODEL or a shape with --like")
    if plot is not None:
        check_plot(plot)
    run = _measure_again if check else _measure_and_store
    report = run(_config(model, like), dtype or ["auto"], max_rows, budget)
    lost = regret(report.table, report.measurements.curves) if check else None
    if as_json:
        typer.echo(to_json(report, lost))
    else:
        print_report(report)
        if lost is not None:
            print_regret(lost, _GOAL)
    if left := report.measurements.unmeasured:
        shapes = ", ".join(map(str, left))
        typer.secho(
            f"not measured within {budget:g} s: {shapes}; --budget gives more time", fg="yellow", err=True
        )
    if not check:
        typer.echo(f"saved to {report.file}", err=as_json)
    if plot is not None:
        plot_tuning(report, plot, title=model or like or _DEFAULT_SHAPE)
    if lost is not None and lost.max > _GOAL:
        raise typer.Exit(1)


def _measure_and_store(
    config: "ModelConfig", dtypes: list[str], max_rows: int, budget_seconds: float
) -> "TuneReport":
    import torch

    from lapidist.cli.tune_report import TuneReport
    from lapidist.kernels.cpu.linear import IMPLEMENTATIONS, pack_weight
    from lapidist.kernels.dispatch_storage import check_writable, save_table
    from lapidist.kernels.tune import tune
    from lapidist.workload.linear_shapes import linear_shapes

    layers, cpu = linear_shapes(config), torch.device("cpu")
    wanted = _dtypes(config, dtypes)
    check_writable(cpu)
    with _progress_bar() as progress:
        tuning = tune(
            IMPLEMENTATIONS,
            layers.values(),
            wanted,
            max_rows=max_rows,
            budget_seconds=budget_seconds,
            progress=progress,
            pack=pack_weight,
        )
    file = save_table(tuning.table, cpu)
    names = tuple(each.name for each in IMPLEMENTATIONS)
    return TuneReport(layers, names, tuning.table, tuning.measurements, file)


def _measure_again(
    config: "ModelConfig", dtypes: list[str], max_rows: int, budget_seconds: float
) -> "TuneReport":
    import torch

    from lapidist.cli.tune_report import TuneReport
    from lapidist.kernels.cpu.linear import IMPLEMENTATIONS, pack_weight
    from lapidist.kernels.dispatch_storage import DispatchTableError, read_table, table_file
    from lapidist.kernels.tune import measure
    from lapidist.workload.linear_shapes import linear_shapes

    layers = linear_shapes(config)
    names = tuple(each.name for each in IMPLEMENTATIONS)
    wanted = _dtypes(config, dtypes)
    file = table_file(torch.device("cpu"))
    try:
        table = read_table(file, names)
    except DispatchTableError as error:
        raise ValueError(f"{error}: run lapidist tune without --check first") from None
    with _progress_bar() as progress:
        measurements = measure(
            IMPLEMENTATIONS,
            layers.values(),
            wanted,
            max_rows=max_rows,
            budget_seconds=budget_seconds,
            progress=progress,
            pack=pack_weight,
        )
    return TuneReport(layers, names, table, measurements, file)


def _dtypes(config: "ModelConfig", names: list[str]) -> "list[torch.dtype]":
    from lapidist.models.load import resolve_dtype

    return [resolve_dtype(name) or config.dtype for name in names]


def _config(model: str | None, like: str | None) -> "ModelConfig":
    from lapidist.bundled import resolve_model
    from lapidist.models.config import ModelConfig

    if model is not None:
        return ModelConfig.from_directory(resolve_model(model))
    return ModelConfig.of_shape(like or _DEFAULT_SHAPE)


@contextmanager
def _progress_bar() -> "Iterator[Progress]":
    """A progress bar on stderr that names the weight being measured."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("linear layers", total=None)
        yield lambda shape, done, total: bar.update(
            task, completed=done, total=total, description=str(shape).replace("[", r"\[")
        )
