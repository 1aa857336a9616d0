"""What ``lapidist generate --filter-plot`` draws: where in the prompt the scores are, and what was kept."""

import math
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np

from lapidist.cli.filter_pieces import TokenPiece, token_pieces
from lapidist.cli.filter_view import summary
from lapidist.engine.outputs import RequestOutput
from lapidist.engine.prompt_filters import FilterReport
from lapidist.figure_file import check_format, save_figure
from lapidist.models.tokenizer import Tokenizer
from lapidist.workload.text_files import write_atomically

_LEVELS = 10
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Prompt filter</title><style>
body {{ font: 15px/1.7 system-ui, sans-serif; max-width: 60em; margin: 2em auto; color: #222 }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; font: inherit }}
pre span {{ color: #777 }}
b {{ font-weight: 600; border-bottom: 2px solid #d55e00; color: #000 }}
{levels}
</style></head><body><h1>Prompt filter</h1><p>{summary}</p>
<p>Colour: the score's rank, from the lowest tenth (white) to the highest. Underlined: kept.</p>
<pre>{text}</pre></body></html>"""


def check_filter_plot(path: Path) -> None:
    """Refuse before the run what could not be drawn after it; raises ValueError."""
    if path.suffix.lower() != ".html":
        check_format(path)
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist")


def plot_filter(output: RequestOutput, tokenizer: Tokenizer, path: Path) -> bool:
    """Draw into an HTML page, or a picture in the format of ``path``; the file appears complete or not at all.

    Returns
    -------
    Whether there was anything to draw: False if the prompt was not filtered.

    Raises
    ------
    OSError : the file cannot be written.
    """
    pieces = token_pieces(output, tokenizer)
    if pieces is None or output.prompt_filter is None:
        return False
    if path.suffix.lower() == ".html":
        write_atomically(path, [filter_page(pieces, output.prompt_filter)])
    else:
        _draw(pieces, output.prompt_filter, path)
    return True


def filter_page(pieces: list[TokenPiece], report: FilterReport) -> str:
    """The prompt as HTML, each token on a background by the rank of its score."""
    levels = score_levels([piece.score for piece in pieces])
    parts = []
    for (kept, level), group in groupby(
        zip(pieces, levels, strict=True), key=lambda pair: (pair[0].kept, pair[1])
    ):
        tag = "b" if kept else "span"
        text = escape("".join(piece.text for piece, _ in group))
        parts.append(f'<{tag} class="s{level}">{text}</{tag}>')
    colours = "\n".join(
        f".s{level} {{ background: rgba(255, 176, 0, {level / (_LEVELS - 1):.2f}) }}"
        for level in range(_LEVELS)
    )
    return _PAGE.format(levels=colours, summary=escape(summary(report)), text="".join(parts))


def score_levels(scores: list[float]) -> list[int]:
    """Of each score the tenth of the ranks that it lies in, 0 to 9; equal scores share one."""
    _, inverse, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    below = np.concatenate(([0], counts.cumsum()[:-1]))
    return [int(level) for level in below[inverse] * _LEVELS // len(scores)]


def _draw(pieces: list[TokenPiece], report: FilterReport, path: Path) -> None:
    from matplotlib.figure import Figure

    scores = np.array([piece.score for piece in pieces])
    kept = np.array([piece.kept for piece in pieces])
    places = np.arange(len(pieces))
    figure = Figure(figsize=(10, 7), layout="constrained")
    figure.suptitle(summary(report), fontsize=10)
    top, bottom = figure.subplots(2, 1, height_ratios=(1, 2))
    top.plot(places, scores, linewidth=0.6, color="0.6", label="score")
    top.plot(places[kept], scores[kept], ".", markersize=3, color="C1", label="kept")
    top.set_xlabel("position in the prompt")
    top.set_ylabel("score")
    top.margins(x=0)
    top.legend(fontsize=8)
    width = max(16, math.ceil(math.sqrt(2 * len(pieces))))
    lines = -(-len(pieces) // width)
    grid = np.full(lines * width, np.nan)
    grid[: len(pieces)] = score_levels(scores.tolist())
    picture = bottom.imshow(grid.reshape(lines, width), aspect="auto", cmap="YlGn", interpolation="nearest")
    figure.colorbar(picture, ax=bottom, label="tenth of the ranks")
    line, column = np.divmod(places[kept], width)
    bottom.plot(column, line, "s", markersize=max(1.0, 160 / width), markerfacecolor="none", color="C1")
    bottom.set_xlabel(f"position modulo {width}")
    bottom.set_ylabel(f"position / {width}")
    save_figure(figure, path)
