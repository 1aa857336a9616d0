"""``lapidist eval perplexity``: how well a model predicts a text."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli import eval_options, options

if TYPE_CHECKING:
    from lapidist.evaluation.perplexity import Perplexity
    from lapidist.evaluation.windows import Window


def perplexity(
    model: options.Model,
    text: eval_options.Text = None,
    window: eval_options.Window = None,
    stride: eval_options.Stride = None,
    bos: eval_options.Bos = False,
    max_tokens: eval_options.MaxTokens = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
) -> None:
    """Measure perplexity and bits per byte of MODEL on a text.

    The text is tokenized as one and cut into windows that do not overlap, as publications do.

    Example: lapidist eval perplexity tiny --text wikitext2_test.txt.gz

    Example: lapidist eval perplexity /models/llama-3.2-1b --text notes.txt --text mail.jsonl --max-tokens 50000 --json
    """
    from rich.console import Console

    from lapidist.bundled import resolve_model
    from lapidist.evaluation.perplexity_report import perplexity_fields, print_perplexity
    from lapidist.evaluation.text import tokenize
    from lapidist.evaluation.windows import cut
    from lapidist.models.config import ModelConfig
    from lapidist.models.tokenizer import Tokenizer

    directory = resolve_model(model)
    texts = eval_options.read_text(text)
    config = ModelConfig.from_directory(directory)
    tokenized = tokenize(Tokenizer.from_directory(directory), texts, config.vocab_size, max_tokens)
    windows = cut(tokenized, config.max_position_embeddings, window, stride, bos)
    found = _measure(directory, dtype, device, windows)
    if as_json:
        content = {"model": model, "text_tokens": len(tokenized.token_ids), **perplexity_fields(found)}
        typer.echo(json.dumps(content, indent=2))
    else:
        print_perplexity(found, max(len(each.token_ids) for each in windows), Console())


def _measure(directory: Path, dtype: str, device: str, windows: "list[Window]") -> "Perplexity":
    from lapidist.cli.progress import progress_bar
    from lapidist.evaluation.perplexity import measure_perplexity
    from lapidist.models.load import load_decoder, resolve_device, resolve_dtype

    decoder = load_decoder(directory, resolve_dtype(dtype), resolve_device(device))
    with progress_bar() as progress:
        return measure_perplexity(decoder, windows, lambda done, total: progress("tokens", done, total))
