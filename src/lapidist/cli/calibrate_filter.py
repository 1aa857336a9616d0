"""``lapidist calibrate-filter``: finds the policy, the layer and the share of tokens that prompt filters use by
default."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli import filter_options, options

if TYPE_CHECKING:
    from lapidist.evaluation.filter_calibration import FilterCalibration
    from lapidist.models.filter_config import GemFilterPolicy


def calibrate_filter(
    model: options.Model,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help='Text to hide facts in, .txt or .jsonl with {"text": ...}; may be given several times. '
            "(default: a mixture that ships with Lapidist)",
            metavar="FILE",
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            help="Tokens of the longest prompts; others have half and a quarter of them. (default: the model's "
            "context, 2048 at most)",
            min=1,
            metavar="N",
        ),
    ] = None,
    keeps: Annotated[
        str, typer.Option("--keep", help="Shares of the prompt to try.", metavar="S,S,...")
    ] = "0.05,0.1,0.2,0.4",
    trials: Annotated[
        int, typer.Option(help="Prompts for each length and each of five depths.", min=1, metavar="N")
    ] = 2,
    goal: Annotated[
        float,
        typer.Option(help="Share of the accuracy with the whole prompt that is enough.", min=0.0, max=1.0),
    ] = 0.95,
    style: Annotated[
        str, typer.Option(help="What is hidden: number, word, sentence or chat.", metavar="STYLE")
    ] = "number",
    prompt_filter: Annotated[
        str,
        typer.Option(
            help="How tokens are chosen: a JSON object with the options of a policy, "
            '{"method": "gemfilter", "pool": 13} or {"method": "gemfilter", "policy": "published"}. '
            "(default: the best policy that is found)",
            metavar="JSON",
        ),
    ] = "gemfilter",
    seed: Annotated[int, typer.Option(help="Of the hidden facts.", min=0)] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Write a copy that shares the weights, and leave MODEL alone.", metavar="DIR"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report only; write no checkpoint.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the sweep over layers: .png, .svg or .pdf.", dir_okay=False)
    ] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
) -> None:
    """Hide facts in text, see from what choices of tokens MODEL answers, and store policy and layer in config.json.

    Requests with the filters gemfilter and adaptive then use them unless they say otherwise.

    Exit status 1: no layer reaches the goal, and nothing is written.

    Example: lapidist calibrate-filter /models/llama-3.2-1b --text essays.txt --length 8192

    Example: lapidist calibrate-filter tiny --dry-run --plot layers.png
    """
    from lapidist.bundled import resolve_model
    from lapidist.cli.calibrate_filter_plot import plot_layers
    from lapidist.cli.calibrate_filter_report import print_report, to_json
    from lapidist.cli.checkpoint_destination import check_destination
    from lapidist.engine.prompt_filters import GemFilter, parse_prompt_filter
    from lapidist.engine.prompt_filters.policy import gemfilter_policy, names_policy
    from lapidist.evaluation.needle_facts import STYLES
    from lapidist.figure_file import check_plot

    directory = resolve_model(model)
    if plot is not None:
        check_plot(plot)
    if not dry_run:
        check_destination(directory, out)
    if style not in STYLES:
        raise ValueError(f"--style must be {', '.join(STYLES[:-1])} or {STYLES[-1]}, got {style!r}")
    chosen = parse_prompt_filter(filter_options.filter_object(prompt_filter, None, None))
    if not isinstance(chosen, GemFilter):
        raise ValueError(
            f"calibrate-filter sweeps the layers of gemfilter, and {chosen.method} has none to sweep"
        )
    policy = gemfilter_policy(chosen, None) if names_policy(chosen) else None
    calibration = _calibrate(
        directory, dtype, device, text, length, _shares(keeps), trials, goal, style, policy, seed
    )
    saved = None if dry_run else _save(directory, out, calibration)
    if as_json:
        typer.echo(to_json(model, calibration, saved))
    else:
        print_report(calibration)
    if saved is not None:
        typer.echo(f"saved to {saved}", err=as_json)
    if plot is not None:
        plot_layers(calibration, plot, title=model)
    if calibration.defaults is None:
        raise typer.Exit(1)


def _shares(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--keep takes shares such as 0.05,0.1, got {text!r}") from None


def _calibrate(
    directory: Path,
    dtype: str,
    device: str,
    text: list[Path] | None,
    length: int | None,
    keeps: list[float],
    trials: int,
    goal: float,
    style: str,
    policy: "GemFilterPolicy | None",
    seed: int,
) -> "FilterCalibration":
    from lapidist.cli.progress import progress_bar
    from lapidist.evaluation.filter_calibration import calibrate_filter, calibration_haystack
    from lapidist.models.calibration.text_files import read_texts
    from lapidist.models.load import load_decoder, resolve_device, resolve_dtype
    from lapidist.models.tokenizer import Tokenizer

    texts = read_texts(text) if text else None
    decoder = load_decoder(directory, resolve_dtype(dtype), resolve_device(device))
    tokenizer = Tokenizer.from_directory(directory)
    haystack = calibration_haystack(tokenizer, texts, length or decoder.config.max_position_embeddings)
    with progress_bar() as show:
        return calibrate_filter(
            decoder,
            tokenizer,
            haystack,
            length=length,
            keeps=keeps,
            trials=trials,
            goal=goal,
            style=style,
            policy=policy,
            seed=seed,
            progress=show,
        )


def _save(directory: Path, out: Path | None, calibration: "FilterCalibration") -> Path | None:
    """The ``config.json`` that was written, if any."""
    from lapidist.models.calibration.checkpoint_files import copy_checkpoint, write_filter

    if calibration.defaults is None:
        return None
    if out is None:
        return write_filter(directory, calibration.defaults)
    return copy_checkpoint(directory, out, calibration.defaults)
