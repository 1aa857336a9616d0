"""``lapidist wafer run``: a small model really computed on simulated meshes of cores, token by token."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapidist.cli.progress import progress_bar
from lapidist.cli.wafer_options import AsJson

if TYPE_CHECKING:
    from lapidist.hardware.wafer.decoder import MeshDecoder
    from lapidist.hardware.wafer.decoder_weights import DecoderWeights
    from lapidist.hardware.wafer.description import Summary
    from lapidist.hardware.wafer.placement import Array
    from lapidist.hardware.wafer.simulator import Traffic
    from lapidist.models.config import ModelConfig


_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM")


def run(
    model: Annotated[
        str, typer.Argument(help="Checkpoint directory ('tiny' is the bundled one).", metavar="MODEL")
    ] = "tiny",
    prompt: Annotated[str, typer.Option(help="Text that the model continues.")] = "The ship left the harbour",
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
    """Run a small Llama, Mistral or Qwen2 in fp32 on simulated cores, messages and memory counted.

    Nothing is estimated here: every core computes with its own tiles and what it was sent. A configuration that does
    not fit into the memory or the routes of a core is refused.

    Example: lapidist wafer run tiny --prompt "Once upon a time" --check
    """
    import json

    from lapidist.bundled import resolve_model
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
    prompt_ids = tokenizer.encode(prompt)
    room = context or len(prompt_ids) + tokens
    weights = _weights(directory, config)
    decoder = MeshDecoder(
        config, weights, Mesh(found, early.rows, early.cols), Mesh(found, late.rows, late.cols), room, chosen
    )
    with progress_bar() as progress:
        generated = decoder.generate(prompt_ids, tokens, config.eos_token_ids, progress)
    same = _same_on_the_cpu(directory, prompt_ids, generated) if check else None
    text = tokenizer.decode(generated)
    if as_json:
        typer.echo(json.dumps(_to_json(decoder, prompt_ids, generated, text, same), indent=2))
    else:
        _print(decoder, prompt, text, same)
    if same is False:
        raise ValueError("the mesh and the CPU generated different tokens")


def _weights(directory: Path, config: "ModelConfig") -> "DecoderWeights":
    """Parameters in fp32; raises ValueError for a model that the mesh does not run."""
    from lapidist.hardware.wafer.decoder_weights import checkpoint_weights, require_plain_decoder
    from lapidist.models.weights import WeightFiles

    if config.architecture not in _ARCHITECTURES:
        raise ValueError(
            f"the wafer runs checkpoints of {', '.join(_ARCHITECTURES)}, {directory} is of {config.architecture}"
        )
    require_plain_decoder(config)
    if config.quantization is not None:
        raise ValueError(
            f"{directory} holds quantized weights, which the wafer does not run; give the float model"
        )
    files = WeightFiles(directory)

    def tensor(name: str, shape: tuple[int, ...]) -> "Array":
        return files.mapped((name, shape)).float().numpy()

    return checkpoint_weights(
        config, tensor, _rope_frequencies(config), config.norm_eps, config.tie_embeddings
    )


def _rope_frequencies(config: "ModelConfig") -> "Array":
    import numpy as np

    rope = config.rope
    if rope.kind not in ("default", "linear") or rope.rotary_dim != config.head_dim:
        raise ValueError(
            f"the wafer runs RoPE of the kinds default and linear over whole heads, this model has {rope.kind} "
            f"over {rope.rotary_dim} of {config.head_dim} channels"
        )
    return rope.theta ** (-np.arange(0, rope.rotary_dim, 2) / rope.rotary_dim) / rope.factor


def _same_on_the_cpu(directory: Path, prompt: list[int], generated: list[int]) -> bool:
    from lapidist import LLM, SamplingParams

    params = SamplingParams(temperature=0, max_tokens=len(generated), ignore_eos=True)
    [output] = LLM(directory, dtype="float32").generate({"prompt_token_ids": prompt}, params)
    return list(output.outputs[0].token_ids) == generated


def _phases(decoder: "MeshDecoder") -> "list[tuple[str, str, Summary, Traffic]]":
    """Name, grid, one layer's totals and the bytes of all layers and tokens."""
    prefill, decode = decoder.prefill_program, decoder.layer
    return [
        ("prefill", f"{prefill.rows}x{prefill.cols}", prefill.summary(), decoder.prefill_traffic),
        ("decode", f"{decode.rows}x{decode.cols}", decode.summary(), decoder.decode_traffic),
    ]


def _to_json(
    decoder: "MeshDecoder", prompt: list[int], generated: list[int], text: str, same: bool | None
) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "prompt_tokens": len(prompt),
        "token_ids": generated,
        "text": text,
        "same_as_cpu": same,
        "phases": {
            name: {
                "grid": grid,
                "layer": asdict(summary),
                "sent_bytes": int(traffic.sent.sum()),
                "busiest_core_sent_bytes": int(traffic.sent.max()),
            }
            for name, grid, summary, traffic in _phases(decoder)
        },
        "relayout_bytes": _relayout_bytes(decoder),
        "tokens_of_each_row": decoder.occupancy.tolist(),
    }


def _relayout_bytes(decoder: "MeshDecoder") -> int:
    return sum(int(traffic.sent.sum()) for traffic in decoder.relayout_traffic)


def _print(decoder: "MeshDecoder", prompt: str, text: str, same: bool | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(f"[dim]{escape(prompt)}[/dim]{escape(text)}", highlight=False, soft_wrap=True)
    table = Table("one layer", box=SIMPLE_HEAD)
    for column in ("cores", "routes", "hops", "stages", "ring shifts", "KB of a core", "MB sent in all"):
        table.add_column(column, justify="right")
    for name, grid, summary, traffic in _phases(decoder):
        table.add_row(
            name,
            grid,
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
        f"From prefill to decode {_relayout_bytes(decoder) / 1e6:,.1f} MB moved. "
        f"Rows hold {rows.min()} to {rows.max()} of {decoder.tokens} tokens.",
        highlight=False,
    )
    if same is not None:
        console.print("The CPU generates the same tokens." if same else "The CPU generates other tokens.")
