"""``lapidist inspect``: what the bytes of a checkpoint are spent on."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapidist.cli import options

if TYPE_CHECKING:
    from lapidist.models.checkpoint_parts import CheckpointParts, Part
    from lapidist.models.quantization_config import QuantizationConfig

_LABELS: "dict[Part, str]" = {
    "weights": "weights of linear layers",
    "scales_and_zeros": "their scales and zeros",
    "embedding": "embedding",
    "lm_head": "output head",
    "norms": "norms",
    "biases": "biases",
    "other": "other",
}
_GIB = 1 << 30


def inspect(
    checkpoint: options.Model,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Show what the bytes of a checkpoint are spent on, and what a token of context takes in the KV cache.

    Reads the headers of its files only, so it is quick for a model of any size.

    Example: lapidist inspect tiny
    """
    from lapidist.bundled import resolve_model
    from lapidist.models.checkpoint_parts import checkpoint_parts

    parts = checkpoint_parts(resolve_model(checkpoint))
    if as_json:
        typer.echo(json.dumps(_numbers(checkpoint, parts), indent=2))
    else:
        _print(checkpoint, parts)


def _numbers(checkpoint: str, parts: "CheckpointParts") -> dict[str, Any]:
    formats = parts.quantization
    return {
        "checkpoint": checkpoint,
        "architecture": parts.config.architecture,
        "recipe": None if parts.config.quantization is None else formats.recipe,
        "weights": {"bits": formats.weights.bits, "group_size": formats.weights.group_size},
        "lm_head": {"bits": formats.lm_head.bits, "group_size": formats.lm_head.group_size},
        "activation_bits": formats.activation_bits,
        "kv_bits": formats.kv_bits,
        "bytes": {**parts.byte_counts, "total": parts.total},
        "linear_weights": parts.num_weights,
        "bits_per_weight": parts.bits_per_weight,
        "kv_bytes_per_token": parts.kv_bytes_per_token,
        "float_kv_bytes_per_token": parts.float_kv_bytes_per_token,
        "tokens_per_gib_of_kv_cache": _GIB // parts.kv_bytes_per_token,
    }


def _print(checkpoint: str, parts: "CheckpointParts") -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    recipe = "not quantized" if parts.config.quantization is None else f"recipe {parts.quantization.recipe}"
    console.print(f"[bold]{escape(checkpoint)}[/bold]: {parts.config.architecture}, {escape(recipe)}")
    if parts.config.quantization is not None:
        console.print(_formats(parts.quantization))
    table = Table("part", "bytes", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for part, byte_count in parts.byte_counts.items():
        is_tied = part == "lm_head" and parts.config.tie_embeddings
        if byte_count or is_tied:
            label = f"{_LABELS[part]} (the embedding's)" if is_tied else _LABELS[part]
            table.add_row(label, f"{byte_count:,}", f"{byte_count / parts.total:.1%}")
    table.add_section()
    table.add_row("total", f"{parts.total:,}", "")
    console.print(table)
    console.print(
        f"linear layers: {parts.bits_per_weight:.3f} bits per weight ({parts.num_weights:,} weights)"
    )
    quantized, plain = parts.kv_bytes_per_token, parts.float_kv_bytes_per_token
    compared = "" if quantized == plain else f", unquantized {plain:,} ({plain / quantized:.2f}x)"
    console.print(
        f"KV cache: {quantized:,} bytes per token{compared}; 1 GiB holds {_GIB // quantized:,} tokens of context"
    )


def _formats(formats: "QuantizationConfig") -> str:
    activations, cache = (
        "float" if bits == 16 else f"{bits} bits" for bits in (formats.activation_bits, formats.kv_bits)
    )
    return f"weights {formats.weights}, output head {formats.lm_head}, activations {activations}, KV cache {cache}"
