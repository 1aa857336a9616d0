"""``lapidist eval needle``: does a model find what is hidden in a long text, and does it through a prompt filter?"""

from typing import Annotated

import typer

from lapidist.cli import eval_options, options


def needle(
    model: options.Model,
    methods: eval_options.Methods = "full",
    keep: eval_options.Keep = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="clean (exact answers, chat template where there is one), or published (GemFilter's paper).",
            metavar="PROTOCOL",
        ),
    ] = "clean",
    haystack: eval_options.Haystack = None,
    lengths: eval_options.Lengths = None,
    depths: Annotated[
        str | None,
        typer.Option(
            help="Depths in percent: 0 is the beginning. (default: ten from 0 to 100)", metavar="N,N,..."
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Prompts for each length and depth (clean).", min=1, metavar="N")
    ] = 1,
    needles: Annotated[
        int,
        typer.Option(
            help="Facts in each text (clean); one is asked for, the others lie at random.", min=1, metavar="N"
        ),
    ] = 1,
    style: Annotated[
        str | None,
        typer.Option(
            help="number, word, sentence or chat (clean). (default: chat where there is a template, else number)",
            metavar="STYLE",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the hidden facts (clean).", min=0)] = 0,
    results: eval_options.Results = None,
    json_file: eval_options.JsonFile = None,
    plot: eval_options.Plot = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
) -> None:
    """Hide facts in long texts and ask MODEL for them, by depth and length, through one method or several.

    Example: lapidist eval needle tiny --lengths 512,2048 --plot needle.png

    Example: lapidist eval needle /models/llama --protocol published --haystack essays --methods full,gemfilter,snapkv
    --keep 1024 --results out/needle --json needle.json
    """
    from lapidist.cli.eval_long_context import evaluation_run, present
    from lapidist.evaluation.long_context.needle import PROTOCOLS, NeedleSettings, evaluate_needle
    from lapidist.evaluation.needle_facts import STYLES

    eval_options.check_outputs(json_file, plot)
    eval_options.check_choice("--protocol", protocol, PROTOCOLS)
    if style is not None:
        eval_options.check_choice("--style", style, STYLES)
    settings = NeedleSettings(
        lengths=eval_options.whole_numbers("--lengths", lengths),
        seed=seed,
        haystack=haystack,
        protocol=protocol,
        depths=eval_options.percentages("--depths", depths),
        trials=trials,
        needles=needles,
        style=style,
    )
    with evaluation_run(model, methods, keep, results, dtype, device) as run:
        evaluation = evaluate_needle(run, settings)
    present(evaluation, "depth", json_file, plot, title=f"needles found by {model}, {protocol} protocol")
