"""``lapidist import-qserve``: a checkpoint of QServe or OmniServe in our format."""

from pathlib import Path
from typing import Annotated

import typer


def import_qserve(
    directory: Annotated[
        Path, typer.Argument(help="Directory with QServe's weights and config.json.", metavar="DIR")
    ],
    out: Annotated[Path, typer.Argument(help="Directory to write.", metavar="OUT")],
    kv_bits: Annotated[
        int, typer.Option(help="Of keys and values, which the files do not tell: 4, 8 or 16.", metavar="BITS")
    ] = 4,
) -> None:
    """Write a 4-bit checkpoint of QServe or OmniServe in Lapidist's format, with the same integers.

    Whether its weights are in groups of 128 or per channel, the files tell.

    Example: lapidist import-qserve ./Llama-3-8B-QServe-g128 ./llama-3-8b-g128
    """
    from lapidist.cli.progress import progress_bar
    from lapidist.quantization.qserve_import import import_qserve

    with progress_bar() as show:
        formats = import_qserve(directory, out, kv_bits, lambda done, total: show("files", done, total))
    typer.echo(f"{out}: recipe {formats.recipe}, weights {formats.weights}, KV cache {formats.kv_bits} bits")
