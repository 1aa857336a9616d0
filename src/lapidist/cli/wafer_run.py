"""``lapidist wafer run``: a small model really computed on simulated meshes of cores, token by token."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapidist.cli.progress import progress_bar
from lapidist.cli.wafer_options import AsJson

if TYPE_CHECKING:
    from lapidist.hardware.wafer.decoder import MeshDecoder
    from lapidist.hardware.wafer.description import Summary
    from lapidist.hardware.wafer.simulator import Traffic


def run(
    model: Annotated[
        str, typer.Argument(help="Checkpoint directory ('tiny' is the bundled one).", metavar="MODEL")
    ] = "tiny",
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="Text that the model continues; several run as one batch. (default: The ship left the harbour)"
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to generate at most.", min=1)] = 32,
    prefill_grid: Annotated[
        str, typer.Option(help="Cores for prefill: a side, or ROWSxCOLS.", metavar="GRID")
    ] = "48",
    decode_grid: Annotated[
        str, typer.Option(help="Cores for decode: a side, or ROWSxCOLS.", metavar="GRID")
    ] = "40",
    policy: Annotated[
        str, typer.Option(help="Of the KV cache: shift (even rows) or concat (last row).", metavar="POLICY")
    ] = "shift",
    context: Annotated[
        int | None,
        typer.Option(help="Tokens that the cache has room for. (default: those of the request)", min=1),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Generate on the CPU too, and fail unless the tokens are the same."),
    ] = False,
    device: Annotated[
        str,
        typer.Option(help="wse-2, wse-3, blackhole, dojo, or the YAML file of a device.", metavar="DEVICE"),
    ] = "wse-2",
    as_json: AsJson = False,
) -> None:
    """Run a small model of any family in fp32 on simulated cores, messages and memory counted.

    Nothing is estimated here: every core computes with its own tiles and what it was sent. A configuration that does
    not fit into the memory or the routes of a core is refused.

    Example: lapidist wafer run tiny --prompt "Once upon a time" --check

    Example: lapidist wafer run tiny --prompt "Once upon a time" --prompt "The king said" --tokens 12
    """
    import json

    from lapidist.bundled import resolve_model
    from lapidist.cli.wafer_checkpoint import float_weights
    from lapidist.hardware.wafer.decode_layer import CACHE_POLICIES
    from lapidist.hardware.wafer.decoder import MeshDecoder
    from lapidist.hardware.wafer.device import load_device
    from lapidist.hardware.wafer.mesh import Mesh
    from lapidist.hardware.wafer.regions import Grid
    from lapidist.models.config import ModelConfig
    from lapidist.models.tokenizer import Tokenizer

    chosen = next((each for each in CACHE_POLICIES if each == policy), None)
    if chosen is None:
        raise ValueError(f"unknown policy {policy!r} of the KV cache; known are {', '.join(CACHE_POLICIES)}")
    directory = resolve_model(model)
    config = ModelConfig.from_directory(directory)
    tokenizer = Tokenizer.from_directory(directory)
    found = load_device(device)
    early, late = Grid.parse(prefill_grid), Grid.parse(decode_grid)
    prompts = prompt or ["The ship left the harbour"]
    prompt_ids = [tokenizer.encode(each) for each in prompts]
    decoder = MeshDecoder(
        config,
        float_weights(directory, config),
        Mesh(found, early.rows, early.cols),
        Mesh(found, late.rows, late.cols),
        context or max(map(len, prompt_ids)) + tokens,
        chosen,
        batch=len(prompts),
    )
    with progress_bar() as progress:
        generated = decoder.generate(prompt_ids, tokens, config.eos_token_ids, progress)
    same = _same_on_the_cpu(directory, prompt_ids, generated) if check else None
    texts = [tokenizer.decode(each) for each in generated]
    if as_json:
        sequences = [
            {
                "prompt": text_in,
                "prompt_tokens": len(ids),
                "token_ids": ids_out,
                "text": text,
                "tokens_of_each_row": rows.tolist(),
            }
            for text_in, ids, ids_out, text, rows in zip(
                prompts, prompt_ids, generated, texts, decoder.occupancy, strict=True
            )
        ]
        typer.echo(json.dumps(_to_json(decoder, sequences, same), indent=2))
    else:
        _print(decoder, prompts, texts, same)
    if same is False:
        raise ValueError("the mesh and the CPU generated different tokens")


def _same_on_the_cpu(directory: Path, prompts: list[list[int]], generated: list[list[int]]) -> bool:
    from lapidist import LLM, SamplingParams

    llm = LLM(directory, dtype="float32")
    for prompt, tokens in zip(prompts, generated, strict=True):
        params = SamplingParams(temperature=0, max_tokens=len(tokens), ignore_eos=True)
        [output] = llm.generate({"prompt_token_ids": prompt}, params)
        if list(output.outputs[0].token_ids) != tokens:
            return False
    return True


def _phases(decoder: "MeshDecoder") -> "list[tuple[str, str, int, Summary, Traffic]]":
    """Name, grid, regions of that shape, one layer's totals and the bytes of all layers and tokens."""
    phases = (
        ("prefill", decoder.prefill_program, decoder.prefill_regions, decoder.prefill_traffic),
        ("decode", decoder.layer, decoder.decode_regions, decoder.decode_traffic),
    )
    return [
        (name, f"{layer.rows}x{layer.cols}", regions, layer.summary(), traffic)
        for name, layer, regions, traffic in phases
    ]


def _to_json(decoder: "MeshDecoder", sequences: list[dict[str, Any]], same: bool | None) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "sequences": sequences,
        "same_as_cpu": same,
        "phases": {
            name: {
                "grid": grid,
                "regions": regions,
                "layer": asdict(summary),
                "sent_bytes": int(traffic.sent.sum()),
                "busiest_core_sent_bytes": int(traffic.sent.max()),
            }
            for name, grid, regions, summary, traffic in _phases(decoder)
        },
        "relayout_bytes": _relayout_bytes(decoder),
        "hand_over_bytes": decoder.hand_over_bytes,
    }


def _relayout_bytes(decoder: "MeshDecoder") -> int:
    return sum(int(traffic.sent.sum()) for traffic in decoder.relayout_traffic)


def _print(decoder: "MeshDecoder", prompts: list[str], texts: list[str], same: bool | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    for prompt, text in zip(prompts, texts, strict=True):
        console.print(f"[dim]{escape(prompt)}[/dim]{escape(text)}", highlight=False, soft_wrap=True)
    table = Table("one layer", box=SIMPLE_HEAD)
    for column in (
        "cores",
        "regions",
        "routes",
        "hops",
        "stages",
        "ring shifts",
        "KB of a core",
        "MB sent in all",
    ):
        table.add_column(column, justify="right")
    for name, grid, regions, summary, traffic in _phases(decoder):
        table.add_row(
            name,
            grid,
            str(regions),
            str(summary.paths_per_core),
            f"{summary.critical_hops:,}",
            f"{summary.stages:,}",
            f"{summary.shifts:,}",
            f"{summary.peak_bytes / 1024:.1f}",
            f"{int(traffic.sent.sum()) / 1e6:,.1f}",
        )
    console.print(table)
    rows = decoder.occupancy
    console.print(
        f"From prefill to decode {_relayout_bytes(decoder) / 1e6:,.1f} MB moved, "
        f"{decoder.hand_over_bytes / 1e6:,.3g} MB from region to region. "
        f"Rows hold {rows.min()} to {rows.max()} of {' and '.join(map(str, decoder.tokens))} tokens.",
        highlight=False,
    )
    if same is not None:
        console.print("The CPU generates the same tokens." if same else "The CPU generates other tokens.")
