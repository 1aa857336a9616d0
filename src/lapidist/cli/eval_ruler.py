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
    from lapidist.cli.eval_long_context import evaluation_run, present
    from lapidist.evaluation.ruler.evaluation import RulerSettings, evaluate_ruler
    from lapidist.evaluation.ruler.tasks import PHRASINGS

    eval_options.check_outputs(json_file, plot)
    eval_options.check_choice("--phrasing", phrasing, PHRASINGS)
    settings = RulerSettings(
        lengths=eval_options.whole_numbers("--lengths", lengths),
        seed=seed,
        haystack=haystack,
        tasks=eval_options.names(tasks),
        samples=samples,
        phrasing=phrasing,
        chat=chat,
        questions=tuple(questions or ()),
    )
    with evaluation_run(model, methods, keep, results, dtype, device) as run:
        evaluation = evaluate_ruler(run, settings)
    present(evaluation, "task", json_file, plot, title=f"RULER on {model}, phrasing {phrasing}")
