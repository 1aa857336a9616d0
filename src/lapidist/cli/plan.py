"""``lapidist plan``: what serving a model's traffic would cost on hardware one does not own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapidist.cli.progress import progress_bar

if TYPE_CHECKING:
    from lapidist.models.config import ModelConfig
    from lapidist.planner.plan import Forecast, Refusal, Traffic
    from lapidist.workload.trace_spec import TraceSpec


def plan(
    model: Annotated[
        str,
        typer.Argument(
            help="Checkpoint directory ('tiny' is the bundled one), or a public shape such as llama-3.1-8b or "
            "qwen3-30b-a3b.",
            metavar="MODEL",
        ),
    ],
    on: Annotated[
        str, typer.Option(help="Machines, with commas between them: h200,l40s,cpu or a data sheet's .yaml.")
    ],
    trace: Annotated[
        str,
        typer.Option(
            help="Azure .csv[.gz], ShareGPT .json, our .jsonl[.gz], or poisson:RATE; poisson:inf is offline."
        ),
    ] = "poisson:2",
    recipe: Annotated[
        str,
        typer.Option(
            help="Recipes, with commas between them: checkpoint, bf16, fp8, mxfp4, w4a16kv16-g128, qoq-g128, ..."
        ),
    ] = "checkpoint",
    tensor_parallel: Annotated[
        str, typer.Option(help="Devices that share a model, with commas between them: 1,2,4.")
    ] = "1",
    expert_parallel: Annotated[
        str,
        typer.Option(
            help="So many of these devices divide the experts of a mixture between them, the rest each expert: 1,4."
        ),
    ] = "1",
    backend: Annotated[
        str | None,
        typer.Option(
            help="Whose kernels and overhead a GPU has: trtllm, vllm or sglang. (default: the best measured)"
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            help="Stretch the trace to so many requests per second; several with commas between them."
        ),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            help="Ignore arrival times: keep so many requests under way; several with commas between them."
        ),
    ] = None,
    requests: Annotated[int | None, typer.Option(help="Requests at most.", min=1)] = None,
    duration: Annotated[
        float | None, typer.Option(help="Only what arrives in so many seconds.", min=0)
    ] = None,
    prompt_length: Annotated[
        str, typer.Option(help="Tokens of made-up prompts: N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA.")
    ] = "lognormal:200:0.7",
    output_length: Annotated[str, typer.Option(help="Tokens of made-up answers.")] = "lognormal:80:0.6",
    seed: Annotated[int, typer.Option(help="Of everything made up.", min=0)] = 0,
    shared_prefix: Annotated[
        float,
        typer.Option(
            help="Share of every prompt that all have in common; a trace of lengths does not tell.",
            min=0,
            max=1,
        ),
    ] = 0.0,
    slo_ttft_ms: Annotated[
        float | None,
        typer.Option("--slo-ttft", help="Goodput: longest acceptable time to the first token, ms.", min=0),
    ] = None,
    slo_tpot_ms: Annotated[
        float | None,
        typer.Option("--slo-tpot", help="Goodput: longest acceptable time per further token, ms.", min=0),
    ] = None,
    dollars_per_hour: Annotated[
        float | None,
        typer.Option("--price", help="Of one device per hour, instead of the data sheet's.", min=0),
    ] = None,
    max_num_seqs: Annotated[int, typer.Option(help="Requests in one step at most.", min=1)] = 256,
    max_num_batched_tokens: Annotated[
        int, typer.Option(help="Tokens in one step; longer prompts are cut into chunks.", min=1)
    ] = 2048,
    max_model_len: Annotated[
        int | None, typer.Option(help="Leave longer requests out. (default: the model's context)", min=1)
    ] = None,
    memory_share: Annotated[
        float, typer.Option(help="Of a device's memory that the engine may use.", min=0.01, max=1)
    ] = 0.9,
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="Directory with a tokenizer.json, for the lengths of ShareGPT conversations. (default: MODEL's)"
        ),
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Write all numbers to a file; - is standard output.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw price over latency: .png, .svg, .pdf or .html.", dir_okay=False)
    ] = None,
) -> None:
    """Forecast TTFT, TPOT, throughput, goodput, price and energy of serving a trace.

    The engine's own scheduler runs on a virtual clock, over a model of the hardware. Nothing is run and no weights are
    read.

    Example: lapidist plan llama-3.1-8b --on h200,l40s --recipe bf16,qoq-g128 --trace poisson:4 --requests 500

    Example: lapidist plan llama-3-70b --on h100 --tensor-parallel 4,8 --trace azure.csv.gz --rate 2,4 --plot plan.html

    Example: lapidist plan qwen3-235b-a22b --on h200 --recipe fp8 --tensor-parallel 4,8 --expert-parallel 1,4
    """
    from lapidist.planner.machines import find_machine
    from lapidist.planner.plan import Option, PlanSettings
    from lapidist.planner.plan import plan as forecast
    from lapidist.planner.plots import check_format, plot_plan
    from lapidist.planner.recipes import plan_recipe
    from lapidist.workload.serving_metrics import Objective
    from lapidist.workload.trace_spec import TraceSpec

    if plot is not None:
        check_format(plot)
    config, directory = _config(model)
    settings = PlanSettings(
        max_num_seqs,
        max_num_batched_tokens,
        shared_prefix=shared_prefix,
        memory_share=memory_share,
        dollars_per_hour=dollars_per_hour,
        objective=Objective.of_milliseconds(slo_ttft_ms, slo_tpot_ms),
    )
    recipes = [plan_recipe(name, config) for name in _names(recipe, "--recipe")]
    degrees = [
        (ranks, expert_ranks)
        for ranks in _numbers(tensor_parallel, int, "--tensor-parallel")
        for expert_ranks in _numbers(expert_parallel, int, "--expert-parallel")
    ]
    if config.experts is None and any(expert_ranks > 1 for _, expert_ranks in degrees):
        raise typer.BadParameter(f"--expert-parallel: {model} has no experts")
    choices = [
        Option(find_machine(name, config, each, backend), each, *ranks)
        for name in _names(on, "--on")
        for each in recipes
        for ranks in degrees
    ]
    if rate is not None and concurrency is not None:
        raise typer.BadParameter("name either --rate or --concurrency")
    specs = [
        TraceSpec(trace, requests, duration, each, prompt_length, output_length, seed=seed)
        for each in _numbers(rate, float, "--rate")
    ]
    context_tokens = max_model_len or config.max_position_embeddings
    clients = _numbers(concurrency, int, "--concurrency")
    traffic = [
        _traffic(spec, each, context_tokens, tokenizer or directory) for spec in specs for each in clients
    ]
    with progress_bar() as progress:
        forecasts, refusals = forecast(config, choices, traffic, settings, progress)
    described = {
        "trace": trace,
        "backend": backend,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_batched_tokens,
        "shared_prefix": shared_prefix,
        "memory_share": memory_share,
    }
    _present(model, described, forecasts, refusals, json_file)
    if plot is not None and forecasts:
        plot_plan(forecasts, plot, title=f"{Path(model).name}, {Path(trace).name}")
    if not forecasts:
        raise typer.Exit(1)


def _config(model: str) -> "tuple[ModelConfig, Path | None]":
    """Of a checkpoint directory, the bundled model, or a public shape; and the directory, if it has a tokenizer."""
    from lapidist.bundled import resolve_model
    from lapidist.models.config import ModelConfig

    directory = resolve_model(model)
    if directory.is_dir():
        has_tokenizer = (directory / "tokenizer.json").is_file()
        config = ModelConfig.from_directory(directory, to_run=False)
        return config, directory if has_tokenizer else None
    if "/" in model:
        raise ValueError(f"{model}: there is no such checkpoint directory")
    return ModelConfig.of_shape(model, to_run=False), None


def _traffic(
    spec: "TraceSpec", concurrency: int | None, context_tokens: int, tokenizer: Path | None
) -> "Traffic":
    from lapidist.models.tokenizer import Tokenizer
    from lapidist.planner.plan import Traffic

    reader = Tokenizer.from_directory(tokenizer) if tokenizer is not None else None
    count_tokens = None if reader is None else lambda text: len(reader.encode(text))
    trace, left_out = spec.load(count_tokens, context_tokens)
    if left_out:
        typer.secho(
            f"{left_out} requests longer than the model's context are left out", fg="yellow", err=True
        )
    if concurrency is not None:
        return Traffic(trace, None, concurrency)
    span_seconds = trace[-1].arrival_seconds
    average = len(trace) / span_seconds if span_seconds > 0 else None
    return Traffic(trace, spec.rate or average)


def _present(
    model: str,
    settings: dict[str, Any],
    forecasts: "list[Forecast]",
    refusals: "list[Refusal]",
    json_file: str | None,
) -> None:
    from rich.console import Console

    from lapidist.planner.report import plan_to_json, print_plan
    from lapidist.workload.text_files import write_atomically

    print_plan(forecasts, refusals, Console(stderr=json_file == "-", soft_wrap=True))
    if json_file is None:
        return
    text = plan_to_json(model, settings, forecasts, refusals)
    if json_file == "-":
        typer.echo(text)
    else:
        write_atomically(Path(json_file), [text])


def _names(text: str, option: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ValueError(f"{option}: expected names with commas between them, got {text!r}")
    return names


def _numbers(text: str | None, kind: type[int] | type[float], option: str) -> list[Any]:
    """What is written with commas between; [None] of nothing."""
    if text is None:
        return [None]
    try:
        values = [kind(part) for part in _names(text, option)]
    except ValueError:
        values = [0]
    if not all(0 < value < float("inf") for value in values):
        raise ValueError(f"{option}: expected numbers above 0 with commas between them, got {text!r}")
    return values
