"""Weight clipping: extremes are given up for finer steps where that makes outputs more exact.

QServe (arXiv 2405.04532), section 4.3.4: a grid search of the ratio by which extremes shrink, on the error of outputs.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lapidist.quantization.grid import Grid
from lapidist.quantization.output_error import OutputError

# The paper's range; its 80 ratios take five times as long for next to nothing: errors are flat around the best one.
CLIP_RATIOS = tuple(torch.linspace(1.0, 0.2, 17)[1:].tolist())

# Rows that fit a core's cache, for all ratios are tried on them in turn.
_ROWS = 256


def search_clip_ratios(
    weight: Tensor,
    make_grid: Callable[[Tensor, Tensor | float], Grid],
    error: OutputError,
    ratios: Iterable[float] = CLIP_RATIOS,
) -> Tensor:
    """The ratios with the least error, which is never above that of ratio 1.

    Parameters
    ----------
    weight : ``[outputs, inputs]``.
    make_grid : ``progressive_grid``, ``per_channel_grid`` or ``eight_bit_grid``.
    error : of ``output_error``; one that has groups has those of the grid.
    ratios : those tried beside 1.

    Returns
    -------
    ``[outputs, groups]``, or ``[outputs, 1]`` with an error without groups: what ``make_grid`` takes.
    """
    ratios = tuple(ratios)
    return torch.cat([_search(rows.float(), make_grid, error, ratios) for rows in weight.split(_ROWS)])


def _search(
    rows: Tensor,
    make_grid: Callable[[Tensor, Tensor | float], Grid],
    error: OutputError,
    ratios: tuple[float, ...],
) -> Tensor:
    least = error(make_grid(rows, 1.0).nearest(rows)[1] - rows)
    best = torch.ones_like(least)
    for ratio in ratios:
        found = error(make_grid(rows, ratio).nearest(rows)[1] - rows)
        best[found < least] = ratio
        least = least.minimum(found)
    return best
