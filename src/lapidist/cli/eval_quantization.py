"""``lapidist eval quantization``: checkpoints of one model side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli import eval_options, options

if TYPE_CHECKING:
    from lapidist.evaluation.quantization import QuantizationReport


def quantization(
    reference: Annotated[
        str,
        typer.Argument(
            help="What the others were made from: a checkpoint directory, or 'tiny'.", metavar="REFERENCE"
        ),
    ],
    candidates: Annotated[
        list[str], typer.Argument(help="Quantized checkpoints of the same model.", metavar="CANDIDATE")
    ],
    text: eval_options.Text = None,
    window: eval_options.Window = None,
    stride: eval_options.Stride = None,
    bos: eval_options.Bos = False,
    max_tokens: eval_options.MaxTokens = None,
    needle_lengths: Annotated[
        str | None,
        typer.Option(
            help="Lengths of the retrieval prompts, such as 256,1024. (default: 256, 512, 1024 and 2048, as far as "
            "the context goes)",
            metavar="N,N,...",
        ),
    ] = None,
    needle_trials: Annotated[
        int, typer.Option(help="Retrieval prompts for each length and depth.", min=1, metavar="N")
    ] = 5,
    seed: Annotated[int, typer.Option(help="Of the hidden facts.", min=0)] = 0,
    skip_speed: Annotated[
        bool, typer.Option("--skip-speed", help="Do not measure tokens per second.")
    ] = False,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Write all numbers to a file; - is standard output.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw size against rise of perplexity: .png, .svg or .pdf.", dir_okay=False),
    ] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
) -> None:
    """Compare quantized checkpoints with REFERENCE: size, perplexity, divergence, retrieval and speed.

    Divergence is KL(REFERENCE || CANDIDATE) over all predictions. Facts are hidden in the text for retrieval.

    Example: lapidist eval quantization /models/llama ./llama-w4a8kv4 ./llama-rtn --text wikitext2_test.txt.gz

    Example: lapidist eval quantization tiny ./tiny-w4 --text mail.jsonl --skip-speed --json result.json --plot cost.png
    """
    from lapidist.bundled import resolve_model
    from lapidist.cli.progress import progress_bar
    from lapidist.evaluation.quantization import Settings, evaluate_quantization

    eval_options.check_outputs(json_file, plot)
    settings = Settings(
        dtype,
        device,
        window,
        stride,
        bos,
        max_tokens,
        eval_options.whole_numbers("--needle-lengths", needle_lengths),
        needle_trials,
        seed,
        not skip_speed,
    )
    texts = eval_options.read_text(text)
    checkpoints = [resolve_model(name) for name in candidates]
    with progress_bar() as progress:
        report = evaluate_quantization(resolve_model(reference), checkpoints, texts, settings, progress)
    _present(report, json_file, plot, title=f"{Path(reference).name} quantized")


def _present(report: "QuantizationReport", json_file: str | None, plot: Path | None, title: str) -> None:
    from rich.console import Console

    from lapidist.evaluation.quantization_plot import plot_quantization
    from lapidist.evaluation.quantization_report import print_report, to_json
    from lapidist.evaluation.serving.report import write_json

    print_report(report, Console(stderr=json_file == "-"))
    if json_file == "-":
        typer.echo(to_json(report))
    elif json_file is not None:
        write_json(Path(json_file), to_json(report))
    if plot is not None:
        plot_quantization(report, plot, title)
