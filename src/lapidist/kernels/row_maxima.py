"""The scores of attention themselves, which the fused kernels never write down: for calibration and measurements."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lapidist.kernels.paged_layout import PagedLayout

# One block of scores is float32 [heads, 128, 1024]: 16 MiB for 32 heads, whatever the context.
_QUERIES = 128
_KEYS = 1024


def row_maxima(
    query: Tensor,
    keys: Tensor,
    layout: PagedLayout,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """The largest score of each row (token, head) over the keys that it sees.

    Parameters
    ----------
    query, layout, scale, window, softcap : as of ``lapidist.kernels.attention.paged_attention``.
    keys : of one layer in the cache, as ``PagedKVCache.numbers`` gives them.

    Returns
    -------
    float32 ``[tokens, heads]``
    """
    maxima = torch.full(query.shape[:2], float("-inf"), device=query.device)
    for tokens, scores in score_blocks(query, keys, layout, scale, window, softcap):
        maxima[tokens] = torch.maximum(maxima[tokens], scores.amax(-1).T)
    return maxima


def score_blocks(
    query: Tensor,
    keys: Tensor,
    layout: PagedLayout,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """All scaled and capped scores, in blocks of bounded size; the parameters are those of ``row_maxima``.

    Yields
    ------
    Which tokens the block's queries are, and their scores with a range of keys: float32 ``[heads, queries, keys]``,
    minus infinity where a query does not see a key.
    """
    starts, lengths = layout.query_starts.tolist(), layout.kv_lengths.tolist()
    for index, (start, end, length) in enumerate(zip(starts[:-1], starts[1:], lengths, strict=True)):
        past = length - (end - start)
        for first in range(start, end, _QUERIES):
            last = min(first + _QUERIES, end)
            positions = torch.arange(past + first - start, past + last - start, device=query.device)
            grouped = _grouped(query[first:last], keys.shape[1])
            begin = 0 if window is None else max(0, past + first - start - window + 1)
            stop = past + last - start
            for key in range(begin, stop, _KEYS):
                seen = torch.arange(key, min(key + _KEYS, stop), device=query.device)
                scores = grouped @ _keys_at(keys, layout.page_table[index], seen) * scale
                if softcap is not None:
                    scores = scores.div_(softcap).tanh_().mul_(softcap)
                scores = scores.view(query.shape[1], last - first, len(seen))
                hidden = seen > positions[:, None]
                if window is not None:
                    hidden |= seen <= positions[:, None] - window
                yield slice(first, last), scores.masked_fill_(hidden, float("-inf"))


def _grouped(query: Tensor, kv_heads: int) -> Tensor:
    """float32 ``[kv_heads, group * queries, head_dim]`` of ``[queries, heads, head_dim]``."""
    queries, heads, head_dim = query.shape
    return query.float().transpose(0, 1).reshape(kv_heads, heads // kv_heads * queries, head_dim)


def _keys_at(keys: Tensor, pages: Tensor, positions: Tensor) -> Tensor:
    """float32 ``[kv_heads, head_dim, positions]``."""
    page_size = keys.shape[2]
    found = keys[pages[positions // page_size].long(), :, positions % page_size]
    return found.float().permute(1, 2, 0)
