"""``lapidist bench``: measurements of speed."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli import options

if TYPE_CHECKING:
    from lapidist.engine.async_llm import AsyncLLM
    from lapidist.evaluation.serving.benchmark import Benchmark, BenchmarkResult

bench = typer.Typer(no_args_is_help=True)


@bench.callback()
def _bench() -> None:
    """Measure how fast a model is served."""


@bench.command()
def serve(
    model: Annotated[
        str | None, typer.Argument(help="Checkpoint directory, or 'tiny': measured in this process.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Measure an OpenAI-compatible server instead (key: OPENAI_API_KEY).")
    ] = None,
    served_name: Annotated[
        str | None, typer.Option("--model", help="Model to ask the server for, else its first.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Directory with the served model's tokenizer.json, for exact lengths.")
    ] = None,
    trace: Annotated[
        str, typer.Option(help="Azure .csv[.gz], ShareGPT .json, our .jsonl[.gz], or poisson:RATE.")
    ] = "poisson:2",
    requests: Annotated[int | None, typer.Option(help="Requests at most.", min=1)] = None,
    duration: Annotated[
        float | None, typer.Option(help="Only what arrives in so many seconds.", min=0)
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Stretch the trace to so many requests per second.", min=1e-6)
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Ignore arrival times: keep so many requests under way.", min=1)
    ] = None,
    prompt_length: Annotated[
        str, typer.Option(help="Tokens of made-up prompts: N, uniform:LOW:HIGH or lognormal:MEDIAN:SIGMA.")
    ] = "lognormal:200:0.7",
    output_length: Annotated[str, typer.Option(help="Tokens of made-up answers.")] = "lognormal:80:0.6",
    variation: Annotated[
        float, typer.Option(help="Of made-up gaps: 1 is Poisson, more is burstier.", min=0, max=100)
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of everything made up.", min=0)] = 0,
    slo_ttft_ms: Annotated[
        float | None, typer.Option(help="Goodput: longest acceptable time to the first token.", min=0)
    ] = None,
    slo_tpot_ms: Annotated[
        float | None, typer.Option(help="Goodput: longest acceptable time per further token.", min=0)
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", help="Write all numbers to a file; - is standard output.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw latency distributions: .png, .svg or .pdf.")] = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
    max_model_len: options.MaxModelLen = None,
    max_num_seqs: Annotated[int, typer.Option(help="Requests in one engine step at most.", min=1)] = 64,
    attention_softmax: options.AttentionSoftmax = "auto",
    record: options.Record = None,
) -> None:
    """Replay a request trace and report TTFT, TPOT, end-to-end latency, throughput and goodput.

    Ctrl-C stops early and reports what has been measured so far.

    Example: lapidist bench serve tiny --trace poisson:4 --requests 50

    Example: lapidist bench serve --url http://localhost:8000 --trace azure.csv.gz --rate 2 --plot latency.png
    """
    from lapidist.evaluation.serving.benchmark import Benchmark
    from lapidist.figure_file import check_format
    from lapidist.workload.serving_metrics import Objective
    from lapidist.workload.trace_spec import TraceSpec

    if (model is None) == (url is None):
        raise typer.BadParameter("name either a MODEL to measure in this process or a server with --url")
    if plot is not None:
        check_format(plot)
    benchmark = Benchmark(
        TraceSpec(trace, requests, duration, rate, prompt_length, output_length, variation, seed),
        concurrency,
        Objective.of_milliseconds(slo_ttft_ms, slo_tpot_ms),
    )
    if url is not None:
        result = asyncio.run(_measure_server(benchmark, url, served_name, tokenizer, max_model_len))
    else:
        with _engine(model, dtype, device, max_model_len, max_num_seqs, attention_softmax, record) as llm:
            result = asyncio.run(_measure_engine(benchmark, llm))
    _present(benchmark, result, str(url or model), json_file, plot)


async def _measure_server(
    benchmark: "Benchmark",
    url: str,
    served_name: str | None,
    tokenizer: Path | None,
    context_tokens: int | None,
) -> "BenchmarkResult":
    from lapidist.evaluation.serving.http_target import HttpTarget
    from lapidist.models.tokenizer import Tokenizer

    reader = Tokenizer.from_directory(tokenizer) if tokenizer is not None else None
    async with HttpTarget(url, served_name, os.environ.get("OPENAI_API_KEY")) as target:
        with _progress_bar() as progress:
            return await benchmark.run(target, reader, context_tokens, progress)


async def _measure_engine(benchmark: "Benchmark", llm: "AsyncLLM") -> "BenchmarkResult":
    from lapidist.evaluation.serving.engine_target import EngineTarget

    with _progress_bar() as progress:
        return await benchmark.run(EngineTarget(llm), llm.tokenizer, llm.max_model_len, progress)


@contextmanager
def _progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, as a function of finished and all requests."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("requests", total=None)
        yield lambda finished, total: bar.update(task, completed=finished, total=total)


@contextmanager
def _engine(
    model: str | None,
    dtype: str,
    device: str,
    max_model_len: int | None,
    max_num_seqs: int,
    attention_softmax: str,
    record: Path | None,
) -> "Iterator[AsyncLLM]":
    from lapidist.bundled import resolve_model
    from lapidist.engine.async_llm import AsyncLLM

    llm = AsyncLLM(
        resolve_model(str(model)),
        dtype=dtype,
        device=device,
        max_model_len=max_model_len,
        max_num_seqs=max_num_seqs,
        max_queue=sys.maxsize,  # an overloaded engine should show in the latencies, not refuse
        attention_softmax=attention_softmax,
        record=record,
    )
    try:
        yield llm
    finally:
        llm.shutdown()


def _present(
    benchmark: "Benchmark", result: "BenchmarkResult", target: str, json_file: str | None, plot: Path | None
) -> None:
    """Print the report, write the files; exit status 1 when nothing could be measured."""
    from rich.console import Console

    from lapidist.evaluation.serving.plots import plot_latency_cdf
    from lapidist.evaluation.serving.report import print_report, to_json, write_json

    if result.stopped:
        typer.secho("stopped early; this is what had been measured", fg="yellow", err=True)
    if result.left_out:
        typer.secho(
            f"{result.left_out} requests longer than the model's context were left out", fg="yellow", err=True
        )
    print_report(result.metrics, Console(stderr=json_file == "-"))
    report = to_json(target, benchmark, result)
    if json_file == "-":
        typer.echo(report)
    elif json_file is not None:
        write_json(Path(json_file), report)
    if not result.metrics.completed:
        raise typer.Exit(1)
    if plot is not None:
        plot_latency_cdf(
            result.records, plot, title=f"{Path(target).name}, {Path(benchmark.trace.source).name}"
        )
