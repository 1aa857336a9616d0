"""``lapidist eval``: measurements of quality."""

import typer

from lapidist.cli.eval_longbench import longbench
from lapidist.cli.eval_needle import needle
from lapidist.cli.eval_perplexity import perplexity
from lapidist.cli.eval_quantization import quantization
from lapidist.cli.eval_ruler import ruler

evaluate = typer.Typer(no_args_is_help=True)


@evaluate.callback()
def _evaluate() -> None:
    """Measure how good a model is, and what quantizing it cost."""


evaluate.command()(longbench)
evaluate.command()(needle)
evaluate.command()(perplexity)
evaluate.command()(quantization)
evaluate.command()(ruler)
