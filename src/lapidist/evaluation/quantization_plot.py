"""What ``lapidist eval quantization --plot`` draws: size against the rise of the perplexity."""

from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from lapidist.evaluation.quantization import QuantizationReport
from lapidist.figure_file import save_figure

# Where a label may stand beside its point: offset in points, and which corner of the label is there.
_SIDES: tuple[tuple[int, Literal["left", "right"]], ...] = ((9, "left"), (-9, "right"))
_PLACES = [(x, 11 * y, side) for y in (0, 1, -1, 2, -2, 3, -3) for x, side in _SIDES]


def plot_quantization(report: QuantizationReport, path: Path, title: str) -> None:
    """One labelled point per checkpoint; the file appears complete or not at all.

    Raises
    ------
    OSError : the file cannot be written.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    sizes = [row.parts.total / 1e6 for row in report.rows]
    rises = [100 * report.perplexity_rise(row) for row in report.rows]
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.scatter(sizes[1:], rises[1:], zorder=3)
    axes.scatter(sizes[:1], rises[:1], s=90, marker="D", facecolors="none", edgecolors="black", zorder=3)
    axes.set_xlim(0, 1.2 * max(sizes))
    axes.margins(y=0.15)
    axes.set_xlabel("weights on disk, MB")
    axes.set_ylabel("rise of perplexity, %")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    figure.draw_without_rendering()  # lays out what labels are placed by
    _label(axes, report.labels(), list(zip(sizes, rises, strict=True)))
    save_figure(figure, path)


def _label(axes: Axes, labels: list[str], points: list[tuple[float, float]]) -> None:
    """Write each label at the first place beside its point where it covers neither a point nor another label."""
    frame = axes.get_window_extent()
    taken = [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in axes.transData.transform(points)]
    for index, (label, point) in enumerate(zip(labels, points, strict=True)):
        others = taken[:index] + taken[index + 1 :]
        text = axes.annotate(
            label, point, (0, 0), textcoords="offset points", va="center", fontsize=8, parse_math=False
        )
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # not struck through by lines
        for x, y, side in _PLACES:
            text.xyann = (x, y)
            text.set_horizontalalignment(side)
            box = text.get_window_extent()
            if frame.x0 <= box.x0 and box.x1 <= frame.x1 and not box.count_overlaps(others):
                break
        taken.append(box)
