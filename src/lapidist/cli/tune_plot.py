"""What ``lapidist tune --plot`` draws: time over the number of rows, with the inflection points."""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lapidist.cli.tune_report import TuneReport
from lapidist.figure_file import save_figure
from lapidist.kernels.dispatch import WeightShape

_COLUMNS = 3


def plot_tuning(report: TuneReport, path: Path, title: str) -> None:
    """One panel per weight; the file appears complete or not at all.

    Raises
    ------
    OSError : the file cannot be written.
    """
    weights = report.labelled()
    columns = min(_COLUMNS, len(weights))
    lines = math.ceil(len(weights) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * lines), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes, (label, shape) in zip(panels, weights, strict=False):
        _draw(axes, report, label, shape)
    for axes in panels[len(weights) :]:
        axes.set_visible(False)
    save_figure(figure, path)


def _draw(axes: Axes, report: TuneReport, label: str, shape: WeightShape) -> None:
    curves = report.measurements.curves[shape]
    for name in report.implementations:
        points = sorted(curves.get(name, {}).items())
        axes.plot([m for m, _ in points], [1e6 * s for _, s in points], marker=".", label=name)
    last = max(rows for curve in curves.values() for rows in curve)
    for index, (start, name) in enumerate(report.table.inflections(shape)):
        if 1 < start <= last:
            axes.axvline(start, color="grey", linestyle=":", linewidth=1)
            axes.annotate(
                f"{name} from {start}",
                (start, 1 - index % 3 / 3),  # points that lie close together do not cover each other
                xycoords=("data", "axes fraction"),
                xytext=(2, -4),
                textcoords="offset points",
                rotation=90,
                va="top",
                fontsize=7,
            )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(labelsize=7, which="both")
    axes.set_xlabel("rows (tokens in the batch)")
    axes.set_ylabel("µs")
    axes.set_title(f"{label} {shape}", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
