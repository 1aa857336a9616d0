"""Log-probabilities of tokens under the model's own distribution."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

# (token id, log-probability, rank). Rank 1 is the likeliest token; equally likely tokens share a rank.
TokenLogprob = tuple[int, float, int]


def token_logprobs(logits: torch.Tensor, chosen_ids: Sequence[int], k: int) -> list[list[TokenLogprob]]:
    """For each row the chosen token, and after it the ``k`` likeliest ones (without the chosen one again).

    Parameters
    ----------
    logits : float32 [rows, vocab], as the model gave them.
    chosen_ids : [rows].
    k : -1 is the whole vocabulary. Of equally likely tokens those with lower ids come first.
    """
    count = logits.shape[1] if k < 0 else min(k, logits.shape[1])
    # One row at a time stays in the cache of a core, and no other core has to be waited for.
    return [
        _of_row(row.cpu().numpy(), token_id, count) for row, token_id in zip(logits, chosen_ids, strict=True)
    ]


def _of_row(x: npt.NDArray[np.float32], chosen_id: int, count: int) -> list[TokenLogprob]:
    peak = float(x.max())
    normalizer = peak + np.log(np.exp(x - peak).sum(dtype=np.float64))
    top_ids = _likeliest(x, count)
    ranks = np.searchsorted(-x[top_ids], -x[top_ids]) + 1
    entries = [(chosen_id, float(x[chosen_id] - normalizer), int(np.count_nonzero(x > x[chosen_id])) + 1)]
    logprobs = (x[top_ids] - normalizer).tolist()
    for token_id, logprob, rank in zip(top_ids.tolist(), logprobs, ranks.tolist(), strict=True):
        if token_id != chosen_id:
            entries.append((token_id, logprob, rank))
    return entries


def _likeliest(x: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.int64]:
    """Ids of the ``count`` highest values, descending."""
    if count == 0:
        return np.empty(0, dtype=np.int64)
    ids = np.flatnonzero(x >= np.partition(x, -count)[-count])
    return ids[np.argsort(-x[ids], kind="stable")][:count]
