"""Scores by row and length as heat maps, one panel per method."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from lapidist.evaluation.long_context.result import MethodResult
from lapidist.figure_file import save_figure

_PANELS_ABREAST = 4
_MOST_WRITTEN = 16  # columns; in narrower cells there is no room for numbers
_MOST_LABELS = 12
_INCHES_PER_CHARACTER = 0.085  # of titles


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
        image = _draw(axes, result.grid, result.rows, result.columns)
        axes.set_title(_title(result, width), fontsize=9, parse_math=False)
        if number % abreast == 0:
            axes.set_ylabel(row_label)
        if number + abreast >= len(results):
            axes.set_xlabel(column_label)
    for axes in panels[len(results) :]:
        axes.set_visible(False)
    figure.colorbar(image, ax=panels, label="score", aspect=20 * lines, pad=0.01)
    save_figure(figure, path)


def plot_method_map(results: Sequence[MethodResult], path: Path, title: str) -> None:
    """Methods by column, means over the rows, in one panel.

    Raises
    ------
    OSError : the file cannot be written.
    """
    grid = np.array([result.grid.mean(0) for result in results])
    labels = [_title(result, inches=3) for result in results]
    width = (
        min(max(0.55 * grid.shape[1], 2.2), 12.0)
        + 0.085 * max(len(line) for label in labels for line in label.splitlines())
        + 1.3
    )
    figure = Figure(figsize=(width, 0.35 * len(results) + 2.2), layout="constrained")
    figure.suptitle(title, fontsize=11, parse_math=False)
    axes = figure.subplots()
    figure.colorbar(_draw(axes, grid, labels, results[0].columns), ax=axes, label="score")
    save_figure(figure, path)


def _title(result: MethodResult, inches: float) -> str:
    """Method and mean, in lines that a panel of such a width holds."""
    words = f"{result.method.label.replace(':', ' ')}  {result.mean:.1%}"
    return textwrap.fill(words, max(12, int(inches / _INCHES_PER_CHARACTER)), break_long_words=False)


def _draw(axes: Axes, grid: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> AxesImage:
    image = axes.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_yticks(range(len(rows)), rows, fontsize=7, parse_math=False)
    step = 1 if len(columns) <= _MOST_WRITTEN else math.ceil(len(columns) / _MOST_LABELS)
    places = range(0, len(columns), step)
    names = [_readable(columns[place]) for place in places]
    axes.set_xticks(places, names, fontsize=7, rotation=45, ha="right", rotation_mode="anchor")
    if len(columns) <= _MOST_WRITTEN:
        for (row, column), value in np.ndenumerate(grid):
            color = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=color)
    return image


def _readable(column: str) -> str:
    return f"{int(column):,}" if column.isdecimal() else column
