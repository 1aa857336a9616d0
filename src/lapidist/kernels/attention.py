"""Attention over a paged KV cache, one sequence at a time, in PyTorch operators.

Keys and values are read exactly as far as the queries see them: nothing is padded, and with a sliding window nothing
before it is touched. Heads that share a KV head are never given copies of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula, sdpa_flop_count

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout

# Elements of a mask or of a block of scores that are in memory at once; longer prompts are done in blocks of queries.
_BLOCK_ELEMENTS = 1 << 24


def paged_attention(
    query: Tensor,
    cache: PagedKVCache,
    layer: int,
    layout: PagedLayout,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Causal attention of every sequence's new tokens over its own context.

    Parameters
    ----------
    query : ``[tokens, heads, head_dim]``; the keys and values of the same tokens are in the cache already.
    scale : factor on the scores.
    window : tokens that a query sees, itself included; None for all.
    softcap : scores become ``softcap * tanh(scores / softcap)`` (Gemma 2, arXiv 2408.00118); None for none.

    Returns
    -------
    ``[tokens, heads, head_dim]``
    """
    outputs = []
    for index, kv_length in enumerate(layout.kv_lengths):
        start, end = layout.query_starts[index : index + 2]
        first = 0 if window is None else max(0, kv_length - (window - 1 + end - start))
        keys, values = _visible(cache, layer, layout, index, first)
        outputs.append(_attend(query[start:end], keys, values, scale, window, softcap))
    if len(outputs) == 1:
        return outputs[0]
    return torch.cat(outputs) if outputs else query


def _visible(
    cache: PagedKVCache, layer: int, layout: PagedLayout, index: int, first: int
) -> tuple[Tensor, Tensor]:
    """Keys and values of tokens ``first`` to the end of a sequence, ``[kv, kv_heads, head_dim]``."""
    size = cache.page_size
    skipped = first // size
    page = layout.first_pages[index]
    if page is not None:
        # The pages follow one another: no copy.
        tokens = slice(page * size + first, page * size + layout.kv_lengths[index])
        return cache.keys[layer].flatten(0, 1)[tokens], cache.values[layer].flatten(0, 1)[tokens]
    pages = layout.page_ids[index][skipped:]
    tokens = slice(first - skipped * size, layout.kv_lengths[index] - skipped * size)
    keys = cache.keys[layer].index_select(0, pages).flatten(0, 1)[tokens]
    values = cache.values[layer].index_select(0, pages).flatten(0, 1)[tokens]
    return keys, values


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """Attention of the last ``len(query)`` tokens of one sequence: ``[queries, heads, head_dim]``."""
    queries, heads, head_dim = query.shape
    kv_length, kv_heads, _ = keys.shape
    if queries == 1 and softcap is None:
        # One query sees all its keys; the heads of one KV head are its rows.
        rows = query.view(1, kv_heads, -1, head_dim)
        one = F.scaled_dot_product_attention(
            rows, keys.transpose(0, 1)[None], values.transpose(0, 1)[None], scale=scale
        )
        return one.reshape(1, heads, head_dim)
    # [kv_heads, group, queries or keys, head_dim]; a stride of zero shares a KV head among its group.
    grouped = query.view(queries, kv_heads, -1, head_dim).permute(1, 2, 0, 3)
    keys = keys.transpose(0, 1)[:, None].expand(-1, grouped.shape[1], -1, -1)
    values = values.transpose(0, 1)[:, None].expand(-1, grouped.shape[1], -1, -1)
    if softcap is None and queries == kv_length and (window is None or queries <= window):
        output = F.scaled_dot_product_attention(grouped, keys, values, is_causal=True, scale=scale)
        return output.permute(2, 0, 1, 3).reshape(queries, heads, head_dim)
    output = torch.empty_like(query)
    block = max(1, _BLOCK_ELEMENTS // (kv_length * (1 if softcap is None else heads)))
    for start in range(0, queries, block):
        part = grouped[:, :, start : start + block]
        mask = _mask(part.shape[2], kv_length, kv_length - queries + start, window, query)
        if softcap is None:
            found = F.scaled_dot_product_attention(part, keys, values, attn_mask=mask, scale=scale)
        else:
            found = _softcapped(part, keys, values, scale, softcap, mask)
        output[start : start + block].view(-1, kv_heads, heads // kv_heads, head_dim).copy_(
            found.permute(2, 0, 1, 3)
        )
    return output


def _mask(queries: int, kv_length: int, past: int, window: int | None, like: Tensor) -> Tensor:
    """Additive mask ``[queries, kv_length]``; query ``i`` sits at key ``past + i``."""
    full = like.new_full((queries, kv_length), float("-inf"))
    mask = full.triu(past + 1)
    return mask if window is None else mask + full.tril(past - window)


def _softcapped(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, softcap: float, mask: Tensor
) -> Tensor:
    """Attention with capped scores; shapes as in ``_attend``. The scores are float32 after the product."""
    kv_heads, group, queries, head_dim = query.shape
    rows = query.reshape(kv_heads, group * queries, head_dim)
    scores = torch.bmm(rows, keys[:, 0].transpose(1, 2)).float()
    scores = scores.mul_(scale / softcap).tanh_().mul_(softcap).view(kv_heads, group, queries, -1)
    weights = F.softmax(scores.add_(mask), dim=-1).to(query.dtype)
    output = torch.bmm(weights.view(kv_heads, group * queries, -1), values[:, 0])
    return output.view(kv_heads, group, queries, head_dim)


_FUSED_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
if _FUSED_ON_CPU not in flop_registry:
    # PyTorch's counter knows the fused attention of GPUs only.
    register_flop_formula(_FUSED_ON_CPU)(
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    )
