"""Drawing a token from a row of logits under temperature, min-p, top-k and top-p."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from lapidist.engine.sequence_sampling import SequenceSampling


def draw(x: torch.Tensor, states: Sequence[SequenceSampling], uniforms: Sequence[float]) -> list[int]:
    """One token id per row.

    Parameters
    ----------
    x : float32 [rows, vocab], overwritten; every row has a finite maximum.
    uniforms : one random number from [0, 1) per row; the same number and row give the same token.
    """
    if x.device.type == "cpu":
        return [draw_from_row(*each) for each in zip(x.numpy(), states, uniforms, strict=True)]
    return draw_from_rows(x, states, uniforms)


def draw_from_row(x: npt.NDArray[np.float32], state: SequenceSampling, uniform: float) -> int:
    """A token id of one row (float32 [vocab], overwritten).

    In NumPy on one core: its sort is far ahead of torch's on a CPU, and there are no threads to wait for.
    """
    params = state.params
    x -= x.max()
    x /= params.temperature
    weights = np.exp(x, out=x)
    smallest = np.float32(params.min_p)
    likeliest = weights
    if state.top_k < len(weights):
        likeliest = np.partition(weights, -state.top_k)[-state.top_k :]
        smallest = max(smallest, likeliest.min())
    if params.top_p < 1:
        likeliest = likeliest[likeliest >= smallest]
        total = likeliest.sum(dtype=np.float64)
        # All that is below this together has no more than 1 - top_p, so the nucleus ends above it.
        floor = (1 - params.top_p) * total / len(likeliest)
        ordered = np.sort(likeliest[likeliest >= floor])[::-1]
        smallest = ordered[_locate(ordered, params.top_p * total, "left")]
    weights *= weights >= smallest
    return _locate(weights, uniform * weights.sum(dtype=np.float64), "right")


def _locate(weights: npt.NDArray[np.float32], mass: float, side: Literal["left", "right"]) -> int:
    """Where the running sum of ``weights`` reaches ("left") or exceeds ("right") ``mass``.

    The sums of stretches are searched, then one stretch: a running sum of all takes ten times longer.
    """
    sums = np.add.reduceat(weights, np.arange(0, len(weights), _STRETCH), dtype=np.float64)
    running = sums.cumsum()
    mass = min(mass, _just_below(running[-1]))
    stretch = int(np.searchsorted(running, mass, side))
    rest = max(mass - (running[stretch] - sums[stretch]), 0.0)
    start = stretch * _STRETCH
    running = weights[start : start + _STRETCH].cumsum(dtype=np.float64)
    return start + int(np.searchsorted(running, min(rest, _just_below(running[-1])), side))


_STRETCH = 256


def _just_below(total: float) -> float:
    """The highest mass to look for: rounding must not lead past the last weight that is not zero."""
    return float(np.nextafter(total, 0))


def draw_from_rows(
    x: torch.Tensor, states: Sequence[SequenceSampling], uniforms: Sequence[float]
) -> list[int]:
    """What :func:`draw_from_row` does, for all rows at once, as suits a GPU."""
    params = [state.params for state in states]

    def column(values: Sequence[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=x.device).unsqueeze(1)

    x -= x.amax(-1, keepdim=True)
    x /= column([each.temperature for each in params])
    weights = x.exp_()
    smallest = column([each.min_p for each in params])
    if any(state.top_k < x.shape[1] or state.params.top_p < 1 for state in states):
        top_k = column([state.top_k for state in states], torch.int64)
        top_p = column([each.top_p for each in params], torch.float64)
        smallest = _smallest_kept(weights, smallest, top_k, top_p)
    weights.masked_fill_(weights < smallest, 0)
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    # A product that rounds up to the total would point past the last token.
    highest = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(column(uniforms, torch.float64) * total, highest)
    ids: list[int] = torch.searchsorted(cumulative, target, right=True)[:, 0].tolist()
    return ids


def _smallest_kept(
    weights: torch.Tensor, smallest: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor
) -> torch.Tensor:
    """The lowest weight that each row keeps after ``top_k``, and after ``top_p`` of what that leaves.

    Parameters
    ----------
    weights : float32 [rows, vocab], unnormalised probabilities whose maximum is 1.
    smallest : float32 [rows, 1], the lowest weight that ``min_p`` keeps.
    top_k : int64 [rows, 1]; ``vocab`` keeps all.
    top_p : float64 [rows, 1]; 1 keeps all.

    Returns
    -------
    float32 [rows, 1].
    """
    vocab_size = weights.shape[1]
    bounded = top_k < vocab_size
    nucleus_of_all = ~bounded & (top_p < 1)
    size = vocab_size if nucleus_of_all.any() else int(top_k[bounded].max())
    largest = weights.topk(size).values.double()
    largest.masked_fill_((torch.arange(size, device=weights.device) >= top_k) | (largest < smallest), 0)
    cumulative = largest.cumsum(-1)
    kept = (largest > 0) & (cumulative - largest < top_p * cumulative[:, -1:])
    last = largest.gather(1, kept.sum(-1, keepdim=True) - 1).float()
    return torch.where(bounded | nucleus_of_all, last, smallest)
