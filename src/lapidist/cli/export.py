"""``lapidist export``: a quantized checkpoint as floats."""

from pathlib import Path
from typing import Annotated

import typer

from lapidist.cli import options


def export(
    checkpoint: options.Model,
    out: Annotated[Path, typer.Argument(help="Directory to write.", metavar="OUT")],
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.", metavar="DTYPE")] = "bfloat16",
    max_shard_gb: Annotated[float, typer.Option(help="Largest file in GB.", min=0.001)] = 5.0,
) -> None:
    """Write a quantized checkpoint as plain floats, which any program reads.

    The weights are the rounded ones. Activations and the KV cache are rounded while Lapidist computes, not in the
    checkpoint: other programs compute them in floats, so that they show what rounding the weights does alone.

    Example: lapidist export ./llama-qoq ./llama-qoq-bf16
    """
    from lapidist.bundled import resolve_model
    from lapidist.cli.progress import progress_bar
    from lapidist.quantization.export import export_checkpoint

    with progress_bar() as show:
        written = export_checkpoint(
            resolve_model(checkpoint),
            out,
            dtype,
            int(max_shard_gb * 1e9),
            lambda done, total: show("MB", done // 1_000_000, total // 1_000_000),
        )
    typer.echo(f"{out}: {written / 1e9:.2f} GB in {dtype}")
