"""``lapidist wafer gemm`` and ``lapidist wafer gemv``: algorithms for one product side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli.progress import progress_bar
from lapidist.cli.wafer_options import (
    AsJson,
    ClockGHz,
    Constants,
    DeviceName,
    GridOption,
    Picture,
    check_pictures,
    load_wafer,
    parse_grids,
    parse_sides,
)

if TYPE_CHECKING:
    from lapidist.hardware.wafer.contest import Entry
    from lapidist.hardware.wafer.device import Device
    from lapidist.hardware.wafer.regions import Grid

Sweep = Annotated[
    str, typer.Option(help="Grids of --plot-cycles, with commas between them.", metavar="GRID,GRID,...")
]
_GRIDS = "120,180,240,300,360,420,480,540,600,660,720"


def gemm(
    size: Annotated[str, typer.Argument(help="Sides of the product: N, or MxKxN.", metavar="SIZE")],
    grid: GridOption = "720",
    device: DeviceName = "wse-2",
    aligned: Annotated[
        bool, typer.Option("--aligned", help="Operands lie ready for MeshGEMM's and Cannon's loop.")
    ] = False,
    constants: Constants = None,
    clock_ghz: ClockGHz = None,
    grids: Sweep = _GRIDS,
    plot_cycles: Picture = None,
    plot_hops: Picture = None,
    plot_memory: Picture = None,
    as_json: AsJson = False,
) -> None:
    """MeshGEMM, Cannon, SUMMA and all-gather GEMM on one grid of cores: cycles, routes, hops and memory.

    Example: lapidist wafer gemm 4096 --grid 720

    Example: lapidist wafer gemm 2048 --plot-cycles cycles.png --plot-hops hops.png --plot-memory memory.png
    """
    from lapidist.hardware.wafer.contest import gemm_contest
    from lapidist.hardware.wafer.gemm_algorithms import GEMMShape
    from lapidist.hardware.wafer.regions import Grid

    check_pictures(plot_cycles, plot_hops, plot_memory)
    found, model = load_wafer(device, constants, clock_ghz)
    shape = GEMMShape(*parse_sides(size, 3, "the size of a product"))
    title = f"{shape.m} x {shape.k} x {shape.n} on {found.title}"
    _show(
        lambda each: gemm_contest(shape, each, found, model, aligned),
        Grid.parse(grid), parse_grids(grids), found, title, (plot_cycles, plot_hops, plot_memory), as_json,
    )  # fmt: skip


def gemv(
    size: Annotated[str, typer.Argument(help="Sides of the matrix: N, or KxN.", metavar="SIZE")],
    grid: GridOption = "720",
    device: DeviceName = "wse-2",
    groups: Annotated[
        int | None,
        typer.Option(help="Groups in the first phase of the tree of two. (default: fewest stages)", min=1),
    ] = None,
    batch: Annotated[int, typer.Option(help="Vectors.", min=1)] = 1,
    constants: Constants = None,
    clock_ghz: ClockGHz = None,
    grids: Sweep = _GRIDS,
    plot_cycles: Picture = None,
    plot_hops: Picture = None,
    plot_memory: Picture = None,
    as_json: AsJson = False,
) -> None:
    """MeshGEMV with trees of one, two and three phases, pipeline and ring: cycles, routes, hops and memory.

    Example: lapidist wafer gemv 16384 --grid 720 --plot-cycles sums.svg
    """
    from lapidist.hardware.wafer.contest import gemv_contest
    from lapidist.hardware.wafer.regions import Grid

    check_pictures(plot_cycles, plot_hops, plot_memory)
    found, model = load_wafer(device, constants, clock_ghz)
    k, n = parse_sides(size, 2, "the size of a matrix")
    title = f"{batch} x {k} x {n} on {found.title}"
    _show(
        lambda each: gemv_contest(k, n, each, found, model, groups, batch),
        Grid.parse(grid), parse_grids(grids), found, title, (plot_cycles, plot_hops, plot_memory), as_json,
    )  # fmt: skip


def _show(
    contest: "Callable[[Grid], list[Entry]]",
    grid: "Grid",
    sweep: "list[Grid]",
    device: "Device",
    title: str,
    pictures: tuple[Path | None, Path | None, Path | None],
    as_json: bool,
) -> None:
    import json

    from lapidist.cli.wafer_plot import plot_cycles, plot_hop_maps, plot_memory_maps
    from lapidist.cli.wafer_report import print_contest
    from lapidist.hardware.wafer.contest import by_algorithm

    entries = contest(grid)
    if as_json:
        typer.echo(json.dumps([entry.to_json(device) for entry in entries], indent=2))
    else:
        print_contest(entries, device, f"{title}, {grid} cores")
    cycles_file, hops_file, memory_file = pictures
    if hops_file is not None:
        plot_hop_maps(
            entries, hops_file, f"Links that the longest message of a core crosses: {title}, {grid} cores"
        )
    if memory_file is not None:
        plot_memory_maps(entries, device, memory_file, f"Memory of each core: {title}, {grid} cores")
    if cycles_file is not None:
        swept: list[Entry] = []
        with progress_bar() as progress:
            for done, each in enumerate(sweep):
                progress(f"{each} cores", done, len(sweep))
                swept += contest(each)
        plot_cycles(by_algorithm(swept), device, cycles_file, title)
