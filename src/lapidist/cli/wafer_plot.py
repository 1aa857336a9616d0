"""What ``lapidist wafer`` draws; every file appears complete or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from lapidist.figure_file import save_figure
from lapidist.hardware.wafer.contest import Entry
from lapidist.hardware.wafer.core_maps import cache_map, hop_map
from lapidist.hardware.wafer.cost import COMPONENTS
from lapidist.hardware.wafer.decode_layer import CachePolicy
from lapidist.hardware.wafer.device import Device
from lapidist.hardware.wafer.llm_cost import PhaseCost, RequestCost
from lapidist.hardware.wafer.reproduction import Cell

_MARKERS = "os^vDP"
_POLICIES: tuple[CachePolicy, ...] = ("concat", "shift")


def plot_cycles(curves: Mapping[str, Sequence[Entry]], device: Device, path: Path, title: str) -> None:
    """Cycles over the side of the mesh, a curve per algorithm; hollow where the device refuses to run it."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.subplots()
    for (name, entries), marker in zip(curves.items(), _MARKERS, strict=False):
        sides = [entry.grid.cores**0.5 for entry in entries]
        cycles = [entry.cost.cycles for entry in entries]
        (line,) = axes.plot(sides, cycles, label=name, linewidth=1.3)
        for side, value, entry in zip(sides, cycles, entries, strict=True):
            fill = "white" if entry.refusal else line.get_color()
            axes.plot(side, value, marker, color=line.get_color(), markerfacecolor=fill, markersize=5)
    axes.set_yscale("log")
    axes.set_xlabel("cores along a side of the mesh")
    axes.set_ylabel("cycles")
    per_cycle = 1e6 / device.clock_hz
    seconds = axes.secondary_yaxis(
        "right",
        functions=(lambda cycles: np.multiply(cycles, per_cycle), lambda us: np.divide(us, per_cycle)),
    )
    seconds.set_ylabel(f"µs at {device.clock_hz / 1e9:g} GHz")
    axes.set_title(f"{title} (hollow: memory or routes do not suffice)", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    save_figure(figure, path)


def plot_hop_maps(entries: Sequence[Entry], path: Path, title: str) -> None:
    """One map per algorithm, all in one scale of colours."""
    maps = [hop_map(entry.description) for entry in entries]
    top = max(2, *(int(each.max()) for each in maps))
    figure = Figure(figsize=(2.9 * len(entries) + 1, 3.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, len(entries), squeeze=False)[0]
    for axes, entry, hops in zip(panels, entries, maps, strict=True):
        image = axes.imshow(_visible(np.maximum(hops, 1)), norm=LogNorm(1, top), cmap="viridis")
        axes.set_title(f"{entry.name}: at most {hops.max()}", fontsize=9)
        _core_axes(axes)
    figure.colorbar(image, ax=list(panels), label="hops", shrink=0.85)
    save_figure(figure, path)


def plot_memory_maps(entries: Sequence[Entry], device: Device, path: Path, title: str) -> None:
    """Bytes of each core as a map, and what they consist of as bars against the core's memory."""
    figure = Figure(figsize=(2.9 * len(entries) + 4, 3.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, len(entries) + 1, width_ratios=[1] * len(entries) + [1.4])
    limit = device.usable_bytes_per_core / 1024
    top = max(limit, *(entry.summary.peak_bytes / 1024 for entry in entries))
    for axes, entry in zip(panels[:-1], entries, strict=True):
        held = np.full((entry.grid.rows, entry.grid.cols), entry.summary.peak_bytes / 1024)
        image = axes.imshow(held, norm=LogNorm(0.1, top), cmap="magma_r", interpolation="nearest")
        over = ", too much" if entry.summary.peak_bytes / 1024 > limit else ""
        axes.set_title(f"{entry.name}: {entry.summary.peak_bytes / 1024:.3g} KB{over}", fontsize=8)
        _core_axes(axes)
    figure.colorbar(image, ax=list(panels[:-1]), label="KB on the core", shrink=0.8)
    _stack_tiles(panels[-1], entries)
    save_figure(figure, path)


def _stack_tiles(axes: Axes, entries: Sequence[Entry]) -> None:
    """What memory consists of, in shares, since all-gather needs a hundred times as much as the others."""
    names = list(dict.fromkeys(name for entry in entries for name in entry.description.tiles))
    totals = np.array([entry.summary.peak_bytes / 1024 for entry in entries])
    left = np.zeros(len(entries))
    places = np.arange(len(entries))
    for name in [*names, "second buffers"]:
        widths = 100 * np.array([_tile_kilobytes(entry, name) for entry in entries]) / totals
        axes.barh(places, widths, left=left, label=name, height=0.7)
        left += widths
    labels = [f"{entry.name}\n{total:.3g} KB" for entry, total in zip(entries, totals, strict=True)]
    axes.set_yticks(places, labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("% of the core's data", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)


def _tile_kilobytes(entry: Entry, name: str) -> float:
    described = entry.description
    if name == "second buffers":
        tiles = sum(tile.elements for tile in described.tiles.values()) * described.element_bytes
        return max(0, entry.summary.peak_bytes - tiles) / 1024
    tile = described.tiles.get(name)
    return 0.0 if tile is None else tile.elements * described.element_bytes / 1024


def plot_cache_maps(cost: RequestCost, path: Path, title: str) -> None:
    """Tokens that each core's cache holds after the request, by policy, and by row of cores."""
    grid = cost.decode.grid
    maps = {policy: cache_map(grid.rows, grid.cols, cost.prompt, cost.output, policy) for policy in _POLICIES}
    top = max(int(each.max()) for each in maps.values())
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    figure.suptitle(title, fontsize=10)
    *panels, profile = figure.subplots(1, 3)
    for axes, (policy, held) in zip(panels, maps.items(), strict=True):
        image = axes.imshow(_visible(held), norm=LogNorm(1, max(2, top)), cmap="magma_r")
        axes.set_title(f"{policy}: at most {held.max()} tokens on a core", fontsize=9)
        _core_axes(axes)
        profile.plot(held[:, 0], np.arange(grid.rows), label=policy)
    figure.colorbar(image, ax=panels, label="tokens", shrink=0.85)
    profile.set_xscale("log")
    profile.invert_yaxis()
    profile.set_xlabel("tokens on each core of a row")
    profile.set_ylabel("row of cores")
    profile.legend(fontsize=8)
    profile.grid(alpha=0.3)
    save_figure(figure, path)


def plot_phases(
    prefill: Sequence[PhaseCost], decode: Sequence[PhaseCost], device: Device, path: Path, title: str
) -> None:
    """Time of each phase on square grids, stacked by what it is spent on; hatched where regions do not fit."""
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(1, 2)
    labels = (("prefill of the prompt", prefill), ("decode of one token", decode))
    for axes, (label, costs) in zip(panels, labels, strict=True):
        ordered = sorted(costs, key=lambda cost: cost.grid.cores)
        bottom = np.zeros(len(ordered))
        for name in (*COMPONENTS, "hand-over between regions"):
            heights = np.array([1e3 * cost.by_component[name] / device.clock_hz for cost in ordered])
            if heights.max(initial=0) > 0:
                axes.bar(range(len(ordered)), heights, bottom=bottom, label=name, width=0.8)
                bottom += heights
        for place, cost in enumerate(ordered):
            if not cost.fits:
                axes.bar(
                    place, bottom[place], width=0.8, fill=False, hatch="///", edgecolor="grey", linewidth=0
                )
        axes.set_xticks(
            range(len(ordered)), [str(cost.grid.rows) for cost in ordered], rotation=60, fontsize=7
        )
        axes.set_xlabel("side of the grid (hatched: not all regions fit on the wafer)")
        axes.set_ylabel("ms")
        axes.set_title(label, fontsize=10)
        axes.grid(alpha=0.3, axis="y")
    panels[1].legend(fontsize=7, loc="lower left", bbox_to_anchor=(1.01, 0.2))
    save_figure(figure, path)


def plot_reproduction(cells: Sequence[Cell], path: Path) -> None:
    """Error of every modelled cell, by table and by what ours rests on."""
    chosen = [cell for cell in cells if cell.how != "derived"]
    kinds = list(dict.fromkeys((cell.table, cell.how) for cell in chosen))
    figure = Figure(figsize=(9, 0.55 * len(kinds) + 1.4), layout="constrained")
    axes = figure.subplots()
    for place, kind in enumerate(kinds):
        errors = np.array([100 * cell.error for cell in chosen if (cell.table, cell.how) == kind])
        spread = np.linspace(-0.18, 0.18, len(errors))
        axes.plot(errors, place + spread, "o", markersize=4)
        axes.plot(
            [errors.min(), errors.max()], [place, place], color="grey", linewidth=1, alpha=0.6, zorder=0
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(kinds)), [f"Table {table}, {how}" for table, how in kinds], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("error, % (right: ours is higher)")
    axes.set_title("WaferLLM's tables beside the model", fontsize=10)
    axes.grid(alpha=0.3, axis="x")
    save_figure(figure, path)


def plot_calibration(
    predicted: NDArray[np.float64],
    measured: NDArray[np.float64],
    held_out: NDArray[np.bool_],
    path: Path,
    title: str,
) -> None:
    """Errors of measured runs over their cycles, those held out apart."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    errors = 100 * (predicted / measured - 1)
    for label, chosen in (("in the fit", ~held_out), ("held out", held_out)):
        if chosen.any():
            axes.plot(measured[chosen], errors[chosen], "o", markersize=3, label=label)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("measured cycles")
    axes.set_ylabel("error of the prediction, %")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)


def _visible(cores: NDArray[np.int64]) -> NDArray[np.int64]:
    """Maxima of neighbourhoods: a single line of cores would be thinner than a dot of the picture."""
    return np.asarray(maximum_filter(cores, size=max(1, max(cores.shape) // 45), mode="nearest"))


def _core_axes(axes: Axes) -> None:
    axes.set_xlabel("column of cores", fontsize=8)
    axes.set_ylabel("row", fontsize=8)
    axes.tick_params(labelsize=7)
