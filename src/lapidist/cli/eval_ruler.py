"""``lapidist eval ruler``: retrieval, tracking and counting in long prompts."""

from pathlib import Path
from typing import Annotated

import typer

from lapidist.cli import eval_options, options


def ruler(
    model: options.Model,
    methods: eval_options.Methods = "full",
    keep: eval_options.Keep = None,
    lengths: eval_options.Lengths = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks by RULER's names, such as niah_single_1,vt. (default: all)", metavar="NAME,NAME,..."
        ),
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Prompts for each task and length. The paper has 500.", min=1, metavar="N")
    ] = 10,
    phrasing: Annotated[
        str,
        typer.Option(
            help="ruler (as published), or plain (the needle tasks as the bundled model was trained on them).",
            metavar="PHRASING",
        ),
    ] = "ruler",
    chat: Annotated[
        bool | None,
        typer.Option(help="Put prompts into the model's chat template. (default: if it has one)"),
    ] = None,
    haystack: eval_options.Haystack = None,
    questions: Annotated[
        list[Path] | None,
        typer.Option(
            help="Questions for the tasks qa_1 (SQuAD 2.0 JSON) and qa_2 (HotpotQA JSON), or your own as .jsonl.",
            metavar="FILE",
            dir_okay=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the generated prompts.", min=0)] = 0,
    results: eval_options.Results = None,
    json_file: eval_options.JsonFile = None,
    plot: eval_options.Plot = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
) -> None:
    """Run RULER's tasks on MODEL, generated here, at lengths measured in its own tokens.

    Example: lapidist eval ruler tiny --phrasing plain --lengths 512,1024,2048 --methods full,gemfilter --keep 0.1

    Example: lapidist eval ruler /models/llama --lengths 4096,8192 --samples 100 --haystack essays --questions
    dev-v2.0.json --json ruler.json --plot ruler.png
    """
    from lapidist.bundled import resolve_model
    from lapidist.cli.eval_long_context import chosen_methods, present
    from lapidist.cli.progress import progress_bar
    from lapidist.evaluation.ruler.evaluation import RulerSettings, evaluate_ruler
    from lapidist.evaluation.ruler.tasks import PHRASINGS

    eval_options.check_outputs(json_file, plot)
    eval_options.check_choice("--phrasing", phrasing, PHRASINGS)
    settings = RulerSettings(
        eval_options.whole_numbers("--lengths", lengths),
        None if tasks is None else tuple(each.strip() for each in tasks.split(",")),
        samples,
        phrasing,
        chat,
        seed,
        haystack,
        tuple(questions or ()),
        dtype,
        device,
    )
    with progress_bar() as progress:
        evaluation = evaluate_ruler(
            resolve_model(model), chosen_methods(methods, keep), settings, results, progress
        )
    present(evaluation, "task", json_file, plot, title=f"RULER on {model}, phrasing {phrasing}")
