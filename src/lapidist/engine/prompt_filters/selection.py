"""From scores to the tokens that are kept."""

import math

import torch
from torch import Tensor

from lapidist.engine.prompt_filters.config import DEFAULT_KEEP, Keep


def kept_tokens(keep: Keep, tokens: int) -> int:
    """How many of a prompt's ``tokens`` are kept, see ``Keep``; a share is rounded up.

    >>> kept_tokens(0.1, 1001), kept_tokens(1024, 300)
    (101, 300)
    """
    keep = DEFAULT_KEEP if keep is None else keep
    return min(tokens, keep if isinstance(keep, int) else math.ceil(keep * tokens))


def select(scores: Tensor, count: int, first: int = 0, last: int = 0, chunk: int = 1) -> Tensor:
    """The places of the ``count`` highest scores, ascending; of equals the earliest.

    Parameters
    ----------
    scores : ``[tokens]``.
    first, last : so many places at either end are chosen whatever their scores, the first before the last, within
        ``count``.
    chunk : above 1, the others are chosen in whole runs of so many, which begin at multiples of it, by their mean
        score; where no further run fits, fewer than ``count`` places are chosen.

    Returns
    -------
    int64 ``[min(count, tokens)]``, with ``chunk`` perhaps fewer.
    """
    tokens = len(scores)
    count = min(count, tokens)
    chosen = torch.zeros(tokens, dtype=torch.bool, device=scores.device)
    chosen[: min(first, count)] = True
    ending = min(last, count - min(first, count))
    chosen[tokens - ending :] = True
    room = count - int(chosen.sum())
    if chunk > 1:
        _choose_chunks(chosen, scores, room, chunk)
    else:
        open_scores = scores.masked_fill(chosen, float("-inf"))
        chosen[open_scores.sort(descending=True, stable=True).indices[:room]] = True
    return chosen.nonzero()[:, 0]


def _choose_chunks(chosen: Tensor, scores: Tensor, room: int, chunk: int) -> None:
    means = torch.stack([scores[start : start + chunk].mean() for start in range(0, len(scores), chunk)])
    for index in means.sort(descending=True, stable=True).indices.tolist():
        part = chosen[index * chunk : (index + 1) * chunk]
        missing = len(part) - int(part.sum())
        if missing <= room:
            part[:] = True
            room -= missing
