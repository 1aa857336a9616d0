"""``lapidist gpu occupancy``: how many blocks of a kernel an SM holds, and what stops it from holding more."""

from dataclasses import asdict
from typing import Annotated

import typer


def occupancy(
    gpu: Annotated[
        str,
        typer.Argument(help="A GPU (see data sheets) or a compute capability such as 8.9.", metavar="GPU"),
    ],
    threads: Annotated[int, typer.Option(help="Threads of a block; 0 compares the usual sizes.", min=0)] = 0,
    registers: Annotated[int, typer.Option(help="Registers of a thread.")] = 32,
    shared_memory: Annotated[int, typer.Option(help="Bytes of shared memory of a block.")] = 0,
    tile: Annotated[
        bool,
        typer.Option(
            "--tiles",
            help="Square tiles of a textbook GEMM instead: T*T threads, two tiles in shared memory.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show the occupancy of a kernel on GPU: resident blocks and warps of an SM, and the limit that is met first.

    Example: lapidist gpu occupancy rtx-4070 --threads 256 --registers 40 --shared-memory 2048

    Example: lapidist gpu occupancy 9.0 --tiles
    """
    import json

    from rich.console import Console
    from rich.table import Table

    from lapidist.hardware.gpu.data_sheet import load_data_sheet
    from lapidist.hardware.gpu.occupancy import SM_LIMITS
    from lapidist.hardware.gpu.occupancy import occupancy as resident

    capability = gpu if gpu in SM_LIMITS else load_data_sheet(gpu).compute_capability
    if tile:
        kernels = [(side * side, 2 * 4 * side * side) for side in (1, 2, 4, 8, 16, 32)]
    else:
        kernels = [
            (size, shared_memory) for size in ([threads] if threads else (32, 64, 128, 256, 512, 1024))
        ]
    found = [(size, memory, resident(capability, size, registers, memory)) for size, memory in kernels]
    if as_json:
        rows = [
            {"threads_per_block": size, "shared_memory_bytes": memory} | asdict(here)
            for size, memory, here in found
        ]
        typer.echo(
            json.dumps({"compute_capability": capability, "registers": registers, "kernels": rows}, indent=2)
        )
        return
    table = Table("threads", "shared bytes", "blocks", "warps", "occupancy", "limited by")
    for column in table.columns[:-1]:
        column.justify = "right"
    for size, memory, here in found:
        cells = (
            size,
            memory,
            here.blocks,
            f"{here.warps} of {SM_LIMITS[capability].warps}",
            f"{here.share:.0%}",
        )
        table.add_row(*map(str, cells), ", ".join(here.limiters))
    console = Console()
    console.print(f"compute capability {capability}, {registers} registers a thread", highlight=False)
    console.print(table)
