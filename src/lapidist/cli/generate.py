"""``lapidist generate``: complete a prompt."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli import filter_options, options
from lapidist.cli.terminal import print_stream

if TYPE_CHECKING:
    from lapidist.engine.async_llm import AsyncLLM
    from lapidist.engine.outputs import RequestOutput
    from lapidist.engine.sampling_params import SamplingParams


def generate(
    model: options.Model,
    prompt: Annotated[
        str | None, typer.Argument(help="Text to continue; '-' or nothing reads standard input.")
    ] = None,
    max_tokens: options.MaxTokens = 128,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    n: Annotated[int, typer.Option("--n", "-n", help="Completions.", min=1)] = 1,
    regex: Annotated[
        str | None, typer.Option(help="The generated text must match this regular expression.")
    ] = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on past the end of text.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the finished output as JSON.")] = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "cpu",
    max_model_len: options.MaxModelLen = None,
    attention_softmax: options.AttentionSoftmax = "auto",
    record: options.Record = None,
    prompt_filter: filter_options.PromptFilter = None,
    filter_keep: filter_options.FilterKeep = None,
    filter_layer: filter_options.FilterLayer = None,
    show_filter: Annotated[
        bool, typer.Option("--show-filter", help="Print the prompt with what the filter kept highlighted.")
    ] = False,
    filter_plot: Annotated[
        Path | None,
        typer.Option(help="Draw scores and kept tokens: .html, .png, .svg or .pdf.", dir_okay=False),
    ] = None,
) -> None:
    """Complete PROMPT with MODEL; the text appears as it is generated.

    Example: lapidist generate tiny "The president said that" --max-tokens 40 --temperature 0

    Example: lapidist generate tiny --prompt-filter gemfilter --filter-keep 10% --show-filter < long.txt
    """
    from lapidist.bundled import resolve_model
    from lapidist.engine.async_llm import AsyncLLM
    from lapidist.engine.sampling_params import StructuredOutput

    chosen = filter_options.filter_object(
        prompt_filter, filter_keep, filter_layer, explain=show_filter or filter_plot is not None
    )
    if filter_plot is not None:
        from lapidist.cli.filter_plot import check_filter_plot

        check_filter_plot(filter_plot)
    text = sys.stdin.read() if prompt in (None, "-") else prompt
    llm = AsyncLLM(
        resolve_model(model),
        dtype=dtype,
        device=device,
        max_model_len=max_model_len,
        max_num_seqs=max(n, 1),
        attention_softmax=attention_softmax,
        record=record,
    )
    try:
        params = dataclasses.replace(
            llm.default_sampling_params(),
            max_tokens=max_tokens,
            n=n,
            ignore_eos=ignore_eos,
            **options.given(
                temperature=temperature,
                top_p=top_p,
                top_k=top_k,
                seed=seed,
                stop=stop or None,
                structured_output=None if regex is None else StructuredOutput(regex=regex),
                prompt_filter=chosen,
            ),
        )
        output = asyncio.run(_complete(llm, text or "", params, as_json, show_filter))
        if filter_plot is not None:
            _plot(output, llm, filter_plot)
    finally:
        llm.shutdown()


async def _complete(
    llm: AsyncLLM, prompt: str, params: SamplingParams, as_json: bool, show_filter: bool
) -> RequestOutput:
    show = partial(_print_filter, llm) if show_filter and not as_json else None
    if params.n == 1 and not as_json:
        return await print_stream(llm, prompt, params, show)
    output = [output async for output in llm.generate(prompt, params)][-1]
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(output), ensure_ascii=False, indent=2))
    else:
        if show is not None:
            show(output)
        for completion in output.outputs:
            typer.secho(f"--- {completion.index} ({completion.finish_reason})", dim=True)
            typer.echo(completion.text)
    return output


def _print_filter(llm: AsyncLLM, output: RequestOutput) -> None:
    from rich.console import Console

    from lapidist.cli.filter_view import print_filter

    print_filter(output, llm.tokenizer, Console(highlight=False))


def _plot(output: RequestOutput, llm: AsyncLLM, path: Path) -> None:
    from lapidist.cli.filter_plot import plot_filter
    from lapidist.cli.filter_view import summary

    if plot_filter(output, llm.tokenizer, path):
        typer.echo(f"drawn to {path}", err=True)
    elif output.prompt_filter is not None:
        typer.echo(f"nothing to draw: {summary(output.prompt_filter)}", err=True)
