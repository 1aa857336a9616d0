"""Attention over a paged KV cache in PyTorch operators.

Sequences that decode go together (``decode_attention``), others one at a time, reading keys and values exactly as
far as the queries see them: with a sliding window nothing before it is touched. Heads that share a KV head
are never given copies of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import flop_registry, register_flop_formula, sdpa_flop_count

from lapidist.kernels.decode_attention import DecodeGroup, decode_attention, group_decodes
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout

# Scores that are in memory at once; more queries are done in blocks. With float32 scores half a million
# stay in a core's cache; a mask is only streamed through.
_SCORES_PER_BLOCK = 1 << 19
_MASK_PER_BLOCK = 1 << 24
_KEYS_PER_PRODUCT = 512


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
    softcap : scores become ``softcap * tanh(scores / softcap)`` (Gemma 2, arXiv 2408.00118).

    Returns
    -------
    ``[tokens, heads, head_dim]``
    """
    output = torch.empty_like(query)
    done: set[int] = set()
    # Padding must be finite; in float16 a request that overflows leaves infinities in pages that others get later.
    may_pad = softcap is None and query.dtype != torch.float16
    for group in _batched_decodes(cache, layer, layout, window) if may_pad else ():
        output[group.rows] = decode_attention(
            query[group.rows],
            cache.keys[layer],
            cache.values[layer],
            group.page_table,
            group.mask,
            group.visible,
            scale,
        )
        done.update(group.sequences)
    for index, kv_length in enumerate(layout.kv_lengths):
        if index in done:
            continue
        start, end = layout.query_starts[index], layout.query_starts[index + 1]
        first = 0 if window is None else max(0, kv_length - (window - 1 + end - start))
        keys, values = _visible(cache, layer, layout, index, first)
        output[start:end] = _attend(query[start:end], keys, values, scale, window, softcap)
    return output


def _batched_decodes(
    cache: PagedKVCache, layer: int, layout: PagedLayout, window: int | None
) -> tuple[DecodeGroup, ...]:
    """Groups of at least two sequences with one new token each; the same for every layer with this window."""
    if window not in layout.decode_groups:
        _, page_size, kv_heads, head_dim = cache.keys[layer].shape
        groups = group_decodes(layout, page_size, kv_heads * head_dim, window)
        layout.decode_groups[window] = tuple(group for group in groups if len(group.sequences) > 1)
    return layout.decode_groups[window]


def _visible(
    cache: PagedKVCache, layer: int, layout: PagedLayout, index: int, first: int
) -> tuple[Tensor, Tensor]:
    """Keys and values of tokens ``first`` to the last of a sequence, ``[1, kv_heads, kv, head_dim]``."""
    keys, values = cache.keys[layer], cache.values[layer]
    _, page_size, kv_heads, head_dim = keys.shape
    page = layout.first_pages[index]
    length = layout.kv_lengths[index] - first
    if page is not None:
        # The pages follow one another: no copy.
        offset = page * page_size + first
    else:
        skipped, offset = divmod(first, page_size)
        pages = layout.page_ids[index][skipped:]
        keys, values = keys.index_select(0, pages), values.index_select(0, pages)
    # One operator in place of flatten, slice, transpose and unsqueeze: with many sequences it shows.
    row = kv_heads * head_dim
    shape, strides = (1, kv_heads, length, head_dim), (0, head_dim, row, 1)
    return keys.as_strided(shape, strides, offset * row), values.as_strided(shape, strides, offset * row)


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """Attention of the last ``len(query)`` tokens of one sequence, ``[queries, heads, head_dim]``."""
    queries, heads, _ = query.shape
    kv_heads, kv_length = keys.shape[1:3]
    if softcap is not None or (queries == 1 and query.device.type == "cpu"):
        # PyTorch's fused attention has no softcap, and for one query on a CPU it is slower than two products.
        return _in_products(query, keys[0], values[0], scale, window, softcap)
    if queries == 1:
        # It sees all keys. The heads that share a KV head are the rows of one product.
        rows = query.view(1, kv_heads, heads // kv_heads, -1)
        return F.scaled_dot_product_attention(rows, keys, values, scale=scale).reshape(query.shape)
    batched = query.transpose(0, 1)[None]
    if queries == kv_length and (window is None or queries <= window):
        output = F.scaled_dot_product_attention(
            batched, keys, values, is_causal=True, scale=scale, enable_gqa=True
        )
        return output[0].transpose(0, 1)
    output = torch.empty_like(query)
    block = max(1, _MASK_PER_BLOCK // kv_length)
    for start in range(0, queries, block):
        part = batched[:, :, start : start + block]
        mask = _mask(part.shape[2], kv_length, kv_length - queries + start, window, query.dtype, query.device)
        found = F.scaled_dot_product_attention(
            part, keys, values, attn_mask=mask, scale=scale, enable_gqa=True
        )
        output[start : start + block] = found[0].transpose(0, 1)
    return output


def _in_products(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int | None, softcap: float | None
) -> Tensor:
    """Attention as matrix products in float32. Keys and values are ``[kv_heads, kv, head_dim]``."""
    queries, heads, _ = query.shape
    kv_length = keys.shape[1]
    block = max(1, _SCORES_PER_BLOCK // (heads * kv_length))
    outputs = []
    for start in range(0, queries, block):
        part = query[start : start + block]
        mask = None
        if queries > 1:
            past = kv_length - queries + start
            mask = _mask(len(part), kv_length, past, window, torch.float32, query.device)
        outputs.append(_block_in_products(part, keys, values, scale, softcap, mask))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _block_in_products(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, softcap: float | None, mask: Tensor | None
) -> Tensor:
    """Attention of some queries, whose scores for all keys are in memory at once."""
    queries, heads, head_dim = query.shape
    kv_heads = len(keys)
    group = heads // kv_heads
    # The heads that share a KV head are rows of one product.
    rows = query.view(queries, kv_heads, group, head_dim).transpose(0, 1)
    rows = rows.reshape(kv_heads, queries * group, head_dim).float()
    # A few keys at a time, so that their float32 copies stay in the processor's cache.
    scores = torch.cat(
        [torch.bmm(rows, part.float().transpose(1, 2)) for part in keys.split(_KEYS_PER_PRODUCT, 1)], -1
    )
    if softcap is None:
        scores *= scale
    else:
        scores.mul_(scale / softcap).tanh_().mul_(softcap)
    if mask is not None:
        scores.view(kv_heads, queries, group, -1).add_(mask[:, None])
    weights = F.softmax(scores, dim=-1).split(_KEYS_PER_PRODUCT, -1)
    parts = values.split(_KEYS_PER_PRODUCT, 1)
    output = torch.bmm(weights[0], parts[0].float())
    for weight, part in zip(weights[1:], parts[1:], strict=True):
        output.baddbmm_(weight, part.float())
    output = output.view(kv_heads, queries, group, head_dim).transpose(0, 1)
    return output.reshape(query.shape).to(query.dtype)


def _mask(
    queries: int, kv_length: int, past: int, window: int | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Additive mask ``[queries, kv_length]``; query ``i`` sits at key ``past + i``."""
    hidden = torch.full((queries, kv_length), float("-inf"), dtype=dtype, device=device)
    mask = hidden.triu(past + 1)
    return mask if window is None else mask + hidden.tril(past - window)


_FUSED_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
if _FUSED_ON_CPU not in flop_registry:
    # PyTorch's counter knows the fused attention of GPUs only.
    register_flop_formula(_FUSED_ON_CPU)(
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    )
