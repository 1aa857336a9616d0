"""``lapidist eval longbench``: LongBench from a local directory."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli import eval_options, options

if TYPE_CHECKING:
    from lapidist.evaluation.long_context.result import Evaluation


def longbench(
    model: options.Model,
    data: Annotated[
        Path,
        typer.Option(
            help="Folder of LongBench's files, TASK.jsonl each, as its data.zip has them.", metavar="DIR"
        ),
    ],
    methods: eval_options.Methods = "full",
    keep: eval_options.Keep = None,
    tasks: Annotated[
        str | None,
        typer.Option(
            help="Tasks by LongBench's names, such as hotpotqa,trec,lcc. (default: the 14 of GemFilter's table, as far "
            "as they are there)",
            metavar="NAME,NAME,...",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Only the first examples of each task.", min=1, metavar="N")
    ] = None,
    max_prompt_tokens: Annotated[
        int | None,
        typer.Option(
            help="Longer prompts are cut in the middle. (default: 128000, or what the context has beside the reply)",
            min=1,
            metavar="N",
        ),
    ] = None,
    chat: Annotated[
        bool,
        typer.Option(
            "--chat", help="Put prompts into the model's chat template, except few-shot tasks and code."
        ),
    ] = False,
    results: eval_options.Results = None,
    json_file: eval_options.JsonFile = None,
    plot: eval_options.Plot = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
) -> None:
    """Run LongBench's English tasks on MODEL, with the published prompts and scores.

    Example: lapidist eval longbench /models/llama --data LongBench/data --methods full,gemfilter,snapkv --keep 1024
    --results out/longbench --json longbench.json
    """
    from lapidist.cli.eval_long_context import evaluation_run
    from lapidist.evaluation.longbench.evaluation import LongBenchSettings, evaluate_longbench

    eval_options.check_outputs(json_file, plot)
    settings = LongBenchSettings(data, eval_options.names(tasks), limit, max_prompt_tokens, chat)
    with evaluation_run(model, methods, keep, results, dtype, device) as run:
        evaluation = evaluate_longbench(run, settings)
    _present(evaluation, json_file, plot, title=f"LongBench on {model}")


def _present(evaluation: "Evaluation", json_file: str | None, plot: Path | None, title: str) -> None:
    from rich.console import Console

    from lapidist.evaluation.long_context.heat_map import plot_method_map
    from lapidist.evaluation.longbench.report import longbench_json, print_longbench
    from lapidist.evaluation.serving.report import write_json

    console = Console(stderr=json_file == "-")
    print_longbench(evaluation.results, console)
    for note in evaluation.notes:
        console.print(note, highlight=False, markup=False)
    if json_file == "-":
        typer.echo(longbench_json(evaluation))
    elif json_file is not None:
        write_json(Path(json_file), longbench_json(evaluation))
    if plot is not None:
        plot_method_map(evaluation.results, plot, title)
