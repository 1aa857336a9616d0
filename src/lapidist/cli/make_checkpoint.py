"""``lapidist make-checkpoint``: random weights in the shape of a public model."""

from pathlib import Path
from typing import Annotated

import typer


def make_checkpoint(
    out: Annotated[Path | None, typer.Argument(help="Directory to write.", metavar="OUT")] = None,
    like: Annotated[
        str | None, typer.Option(help="Shape to copy; --list shows them.", metavar="SHAPE")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights.")] = 0,
    dtype: Annotated[str, typer.Option(help="bfloat16, float16 or float32.", metavar="DTYPE")] = "bfloat16",
    layers: Annotated[
        int | None, typer.Option(help="Keep only so many layers, for quick trials.", min=1, metavar="N")
    ] = None,
    max_shard_gb: Annotated[float, typer.Option(help="Largest file in GB.", min=0.001)] = 5.0,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a checkpoint that is already there.")
    ] = False,
    list_shapes: Annotated[bool, typer.Option("--list", help="Show the shapes and their sizes.")] = False,
) -> None:
    """Write random weights in the shape of a public model, for measuring speed without the real weights.

    Example: lapidist make-checkpoint --like llama-3.2-1b --seed 0 /tmp/llama-3.2-1b
    """
    if list_shapes:
        _print_shapes()
        return
    if like is None or out is None:
        raise typer.BadParameter(
            "name a shape and a directory, for example --like llama-3.2-1b OUT, or use --list"
        )
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from lapidist.models.random_checkpoint import write_random_checkpoint
    from lapidist.models.shapes import shape_config

    config = shape_config(like)
    if layers is not None:
        config["num_hidden_layers"] = layers
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(like, total=None)
        written = write_random_checkpoint(
            config,
            out,
            seed=seed,
            dtype=dtype,
            max_shard_bytes=int(max_shard_gb * 1e9),
            force=force,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    count = config["num_hidden_layers"]
    typer.echo(f"{out}: {like}, {count} layer{'s' * (count > 1)}, {written / 1e9:.2f} GB in {dtype}")


def _print_shapes() -> None:
    from rich.console import Console
    from rich.table import Table

    from lapidist.models.checkpoint_tensors import checkpoint_tensors
    from lapidist.models.shapes import SHAPES

    table = Table("shape", "parameters", "layers", "hidden", "heads", "KV heads", "context")
    for name, config in SHAPES.items():
        parameters = sum(tensor.elements for tensor in checkpoint_tensors(config))
        numbers = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads")
        cells = [str(config[number]) for number in (*numbers, "max_position_embeddings")]
        table.add_row(name, f"{parameters / 1e9:.2f} B", *cells)
    Console().print(table)
