"""What ``lapidist tune`` prints: a table per weight for people, JSON for programs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lapidist.kernels.dispatch import DispatchTable, Inflections, WeightShape
from lapidist.kernels.dispatch_regret import Regret, picks
from lapidist.kernels.dispatch_search import two_inflections
from lapidist.kernels.dispatch_storage import entry_rows
from lapidist.kernels.machine import machine_name
from lapidist.kernels.tune import Measurements


@dataclass(frozen=True)
class TuneReport:
    """A dispatch table and measurements to show it with.

    Attributes
    ----------
    layers : ``(n, k)`` by the layer's name.
    implementations : their names in the order in which they are expected to win.
    file : where the table is stored.
    """

    layers: dict[str, tuple[int, int]]
    implementations: tuple[str, ...]
    table: DispatchTable
    measurements: Measurements
    file: Path

    def labelled(self) -> list[tuple[str, WeightShape]]:
        """The measured weights, by dtype in the model's order; layers of one shape share a label."""
        names: dict[tuple[int, int], list[str]] = {}
        for name, pair in self.layers.items():
            names.setdefault(pair, []).append(name)
        dtypes = dict.fromkeys(shape.dtype for shape in self.measurements.curves)
        shapes = [(names[pair], WeightShape(*pair, dtype)) for dtype in dtypes for pair in names]
        return [(", ".join(who), shape) for who, shape in shapes if shape in self.measurements.curves]


def print_report(report: TuneReport) -> None:
    """A table per weight: microseconds of each implementation, the fastest in bold, and the table's pick."""
    console = Console()
    for label, shape in report.labelled():
        inflections = report.table.inflections(shape)
        words = describe(inflections, report.implementations)
        console.print(f"\n[bold]{label}[/bold] {escape(str(shape))}: {words}", highlight=False)
        table = Table("M", *(f"{name} µs" for name in report.implementations), "picked", "GB/s")
        for column in table.columns:
            column.justify = "left" if column.header == "picked" else "right"
        for _, rows, times, picked in picks(report.table, {shape: report.measurements.curves[shape]}):
            rate = shape.bytes_moved(rows) / times[picked] / 1e9
            cells = (_microseconds(times, name) for name in report.implementations)
            table.add_row(str(rows), *cells, picked, f"{rate:.1f}")
        console.print(table)


def print_regret(regret: Regret, goal: float) -> None:
    """What the stored table loses, and whether that is within the goal."""
    shape, rows = regret.worst
    met = regret.max <= goal
    Console().print(
        f"regret: {regret.max:.1%} at most ({escape(str(shape))}, M = {rows}), {regret.geomean:.1%} on average "
        f"(geometric mean of {regret.points}); within 2 % of the fastest in {regret.near_fastest_share:.0%}; "
        f"goal of {goal:.0%} {'met' if met else 'missed: run lapidist tune on a quiet machine'}",
        style="green" if met else "yellow",
        highlight=False,
    )


def describe(inflections: Inflections, order: tuple[str, ...]) -> str:
    """In words, such as ``gemv, from 7 flat_gemm, from 97 gemm (M1 = 7, M2 = 97)``."""
    words = ", ".join(name if start == 1 else f"from {start} {name}" for start, name in inflections)
    found = two_inflections(inflections, order)
    if found is None:
        return words
    m1, m2 = ("never" if point is None else point for point in found)
    return f"{words} (M1 = {m1}, M2 = {m2})"


def to_json(report: TuneReport, regret: Regret | None) -> str:
    """The table's entries of these weights, all timings in seconds and, after a check, the regret."""
    measured = report.measurements.curves
    shown = DispatchTable({shape: report.table.inflections(shape) for shape in measured})
    content: dict[str, Any] = {
        "machine": machine_name(torch.device("cpu")),
        "file": str(report.file),
        "entries": entry_rows(shown),
        "measurements": [
            {"layers": label, "dtype": _dtype(shape), "n": shape.n, "k": shape.k, "seconds": measured[shape]}
            for label, shape in report.labelled()
        ],
        "unmeasured": [str(shape) for shape in report.measurements.unmeasured],
    }
    if regret is not None:
        content["regret"] = {
            "max": regret.max,
            "geomean": regret.geomean,
            "fastest_share": regret.fastest_share,
            "near_fastest_share": regret.near_fastest_share,
            "points": regret.points,
        }
    return json.dumps(content, indent=2)


def _microseconds(times: dict[str, float], name: str) -> str:
    if name not in times:
        return "-"
    text = f"{1e6 * times[name]:.1f}"
    return f"[bold]{text}[/bold]" if times[name] == min(times.values()) else text


def _dtype(shape: WeightShape) -> str:
    return str(shape.dtype).removeprefix("torch.")
