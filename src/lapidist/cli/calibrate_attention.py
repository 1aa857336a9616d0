"""``lapidist calibrate-attention``: finds the constant of attention's softmax mode unified for a checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli import options

if TYPE_CHECKING:
    from lapidist.models.calibration.calibrate import Calibration, Progress


def calibrate_attention(
    model: options.Model,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help='Text to run, .txt or .jsonl with {"text": ...}; may be given several times. '
            "(default: a mixture that ships with Lapidist)",
            metavar="FILE",
        ),
    ] = None,
    tokens: Annotated[
        int, typer.Option(help="Tokens of it to run; the last fifth tests the result.", metavar="N")
    ] = 16384,
    context: Annotated[
        int | None,
        typer.Option(
            help="Length of the sequences. (default: the model's context, 2048 at most)", metavar="N"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a copy that shares the weights, and leave MODEL alone.", metavar="DIR"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report only; write no checkpoint.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the row maxima: .png, .svg or .pdf.", dir_okay=False)
    ] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
) -> None:
    """Run MODEL over text, choose phi for softmax mode unified of attention, and store it in config.json.

    Exit status 1: no phi suits the model, and its softmax stays lazy.

    Example: lapidist calibrate-attention /models/llama-3.2-1b

    Example: lapidist calibrate-attention tiny --out ./tiny-calibrated --plot maxima.png
    """
    from lapidist.bundled import resolve_model
    from lapidist.cli.calibrate_attention_plot import plot_row_maxima
    from lapidist.cli.calibrate_attention_report import print_report, to_json
    from lapidist.cli.checkpoint_destination import check_destination
    from lapidist.figure_file import check_plot
    from lapidist.models.calibration.text_files import read_texts

    directory = resolve_model(model)
    if plot is not None:
        check_plot(plot)
    if not dry_run:
        check_destination(directory, out)
    texts = read_texts(text) if text else None
    calibration = _calibrate(directory, dtype, device, texts, tokens, context)
    saved = None if dry_run else _save(directory, out, calibration)
    if as_json:
        typer.echo(to_json(model, calibration, saved))
    else:
        print_report(calibration)
    if saved is not None:
        typer.echo(f"saved to {saved}", err=as_json)
    if plot is not None:
        plot_row_maxima(calibration, plot, title=model)
    if not calibration.succeeded:
        raise typer.Exit(1)


def _calibrate(
    directory: Path, dtype: str, device: str, texts: list[str] | None, tokens: int, context: int | None
) -> "Calibration":
    from lapidist.kernels.softmax import SoftmaxMode
    from lapidist.models.calibration.calibrate import calibrate_attention
    from lapidist.models.load import load_decoder, resolve_device, resolve_dtype
    from lapidist.models.tokenizer import Tokenizer

    decoder = load_decoder(directory, resolve_dtype(dtype), resolve_device(device), SoftmaxMode.LAZY)
    tokenizer = Tokenizer.from_directory(directory)
    with _progress_bar() as progress:
        return calibrate_attention(
            decoder, tokenizer, texts, tokens=tokens, context=context, progress=progress
        )


def _save(directory: Path, out: Path | None, calibration: "Calibration") -> Path | None:
    """The ``config.json`` that was written, if any."""
    from lapidist.models.calibration.checkpoint_files import copy_checkpoint, has_softmax, write_softmax

    if not calibration.succeeded and (out is not None or not has_softmax(directory)):
        return None  # lazy is what an uncalibrated checkpoint runs anyway
    if out is None:
        return write_softmax(directory, calibration.softmax)
    return copy_checkpoint(directory, out, calibration.softmax)


@contextmanager
def _progress_bar() -> "Iterator[Progress]":
    """A progress bar on stderr, as a function of tokens run and all tokens."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    bar = Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
    )
    task = bar.add_task("tokens", total=None)

    def show(done: int, total: int) -> None:
        bar.start()  # not before: a mistake that is found first leaves nothing but its sentence
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
