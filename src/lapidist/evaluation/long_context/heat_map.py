"""Scores by row and length as heat maps, one panel per method."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from lapidist.evaluation.long_context.result import MethodResult

_PANELS_ABREAST = 4
_MOST_WRITTEN = 16  # columns; in narrower cells there is no room for numbers
_MOST_LABELS = 12


def plot_heat_maps(
    results: Sequence[MethodResult],
    path: Path,
    title: str,
    row_label: str,
    column_label: str = "length, tokens",
) -> None:
    """From 0 (dark) to 1 (bright); the file appears complete or not at all.

    Raises
    ------
    OSError : the file cannot be written.
    """
    abreast = min(_PANELS_ABREAST, len(results))
    lines = math.ceil(len(results) / abreast)
    rows, columns = results[0].grid.shape
    width = min(max(0.55 * columns, 2.2), 7.0)
    label_width = 0.085 * max(map(len, results[0].rows))
    figure = Figure(
        figsize=(abreast * width + label_width + 1.3, lines * (max(0.28 * rows, 1.6) + 1.1) + 0.4),
        layout="constrained",
    )
    figure.suptitle(title, fontsize=11, parse_math=False)
    panels = list(figure.subplots(lines, abreast, squeeze=False, sharey=True).flat)
    for number, (axes, result) in enumerate(zip(panels, results, strict=False)):
        image = _draw(axes, result)
        if number % abreast == 0:
            axes.set_ylabel(row_label)
        if number + abreast >= len(results):
            axes.set_xlabel(column_label)
    for axes in panels[len(results) :]:
        axes.set_visible(False)
    figure.colorbar(image, ax=panels, label="score", shrink=0.9)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        figure.savefig(temporary, dpi=150)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _draw(axes: Axes, result: MethodResult) -> AxesImage:
    grid = result.grid
    image = axes.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_title(f"{result.method.label}  {result.mean:.1%}", fontsize=9, parse_math=False)
    axes.set_yticks(range(len(result.rows)), result.rows, fontsize=7)
    step = math.ceil(len(result.columns) / _MOST_LABELS)
    places = range(0, len(result.columns), step)
    axes.set_xticks(places, [_readable(result.columns[place]) for place in places], fontsize=7, rotation=45)
    if grid.shape[1] <= _MOST_WRITTEN:
        for (row, column), value in np.ndenumerate(grid):
            color = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    return image


def _readable(column: str) -> str:
    return f"{int(column):,}" if column.isdecimal() else column
