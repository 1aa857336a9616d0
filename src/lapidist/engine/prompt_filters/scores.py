"""How much the last tokens of a prompt attend to each token: the scores by which filters choose."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# One block of attention weights is at most so many float32 numbers: 64 MiB.
_BLOCK = 1 << 24


def raw_scores(queries: Tensor, keys: Tensor) -> Tensor:
    """The products of the queries with each key, summed over query heads and queries: GemFilter's score (arXiv
    2409.17422, algorithm 1) before pooling. No scale and no softmax; a query does not count for the keys behind it.

    Heads that share keys are summed before the product, which is the same and needs no copies of the keys:
    ``sum_h q_h . k_g(h) = sum_g (sum_{h in g} q_h) . k_g``.

    Parameters
    ----------
    queries : ``[queries, heads, head_dim]``, of the last tokens.
    keys : ``[kv_heads, tokens, head_dim]``.

    Returns
    -------
    ``[tokens]``, float64 of float64 queries, else float32.
    """
    dtype = torch.promote_types(queries.dtype, torch.float32)
    count, heads, head_dim = queries.shape
    kv_heads, tokens, _ = keys.shape
    grouped = queries.to(dtype).view(count, kv_heads, heads // kv_heads, head_dim).sum(2)
    visible = torch.ones(count, count, dtype=torch.bool, device=queries.device).tril()
    scores = torch.zeros(tokens, dtype=dtype, device=queries.device)
    for head in range(kv_heads):  # one at a time: the keys in float32 would be twice the layer's
        own = keys[head].to(dtype)
        before, last = own[: tokens - count], own[tokens - count :]
        scores[: tokens - count] += (before @ grouped[:, head].sum(0)[:, None])[:, 0]
        scores[tokens - count :] += (grouped[:, head] @ last.T).masked_fill(~visible, 0).sum(0)
    return scores


def attention_scores(queries: Tensor, keys: Tensor, scale: float, softcap: float | None = None) -> Tensor:
    """The attention weights of each KV head's query heads, summed over them and over the queries.

    Parameters
    ----------
    queries, keys : as in ``raw_scores``.
    scale, softcap : of the model's attention.

    Returns
    -------
    float32 ``[kv_heads, tokens]``
    """
    kv_heads, tokens, _ = keys.shape
    scores = torch.zeros(kv_heads, tokens, device=queries.device)
    first = tokens - len(queries)
    for head, weights in attention_weights(queries, keys, first, scale, softcap):
        scores[head] += weights.sum(0)
    return scores


def attention_weights(
    queries: Tensor, keys: Tensor, first: int, scale: float, softcap: float | None = None
) -> Iterator[tuple[int, Tensor]]:
    """Causal attention weights in blocks of bounded size.

    Parameters
    ----------
    queries : ``[queries, heads, head_dim]``, of the tokens from place ``first`` on.
    keys : ``[kv_heads, tokens, head_dim]``, of all tokens up to the last query's at least.

    Yields
    ------
    A KV head and float32 ``[rows, tokens]``, a row for each of some queries and each of the head's query heads. Every
    query comes once for each KV head.
    """
    count, heads, head_dim = queries.shape
    kv_heads, tokens, _ = keys.shape
    group = heads // kv_heads
    grouped = queries.float().view(count, kv_heads, group, head_dim)
    rows = max(1, _BLOCK // (group * tokens))
    places = torch.arange(tokens, device=queries.device)
    for head in range(kv_heads):
        own = keys[head].float().T
        for start in range(0, count, rows):
            block = grouped[start : start + rows, head]
            logits = (block.flatten(0, 1) @ own).mul_(scale)
            if softcap is not None:
                logits.div_(softcap).tanh_().mul_(softcap)
            position = first + torch.arange(start, start + len(block), device=queries.device)
            hidden = (places > position[:, None]).repeat_interleave(group, 0)
            yield head, logits.masked_fill_(hidden, float("-inf")).softmax(-1)


def pooled(scores: Tensor, width: int) -> Tensor:
    """The mean of ``width`` neighbours (odd), where places outside ``[..., tokens]`` count as zeros.

    >>> pooled(torch.ones(7), 5)
    tensor([0.6000, 0.8000, 1.0000, 1.0000, 1.0000, 0.8000, 0.6000])
    """
    if width == 1:
        return scores
    flat = scores.reshape(-1, 1, scores.shape[-1])
    return F.avg_pool1d(flat, width, stride=1, padding=width // 2).view_as(scores)
