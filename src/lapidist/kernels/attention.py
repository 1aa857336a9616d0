"""Causal attention over a paged KV cache: the native library on a CPU, Triton on a GPU."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lapidist.kernels.cpu import attention as native_attention
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.operators import LIBRARY
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax, SoftmaxMode


def paged_attention(
    query: Tensor,
    cache: PagedKVCache,
    layer: int,
    layout: PagedLayout,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    softmax: Softmax | None = None,
) -> Tensor:
    """Causal attention of every sequence's new tokens over its own context.

    Query heads that share a KV head are rows of one tile: keys and values are read once for all of them. The keys of
    a sequence with few queries are split, so that all threads work on one sequence too.

    Parameters
    ----------
    query : ``[tokens, heads, head_dim]``; the keys and values of the same tokens are in the cache already.
    scale : factor on the scores.
    window : tokens that a query sees, itself included; None for all.
    softcap : scores become ``softcap * tanh(scores / softcap)`` (Gemma 2, arXiv 2408.00118).
    softmax : how exponentials stay in range; mode lazy by default.

    Returns
    -------
    ``[tokens, heads, head_dim]``
    """
    softmax = softmax or Softmax()
    return torch.ops.lapidist.paged_attention(
        query,
        cache.keys[layer],
        cache.values[layer],
        layout.query_starts,
        layout.kv_lengths,
        layout.page_table,
        layout.max_query_length,
        scale,
        window,
        softcap,
        int(softmax.mode),
        softmax.phi,
        softmax.recomputed,
        cache.bits,
    )


LIBRARY.define(
    "paged_attention(Tensor query, Tensor keys, Tensor values, Tensor query_starts, Tensor kv_lengths, "
    "Tensor page_table, int max_query_length, float scale, int? window, float? softcap, int mode, Tensor? phi, "
    "Tensor(a!)? recomputed, int kv_bits) -> Tensor"
)


def _on_cpu(query: Tensor, *arguments: Any) -> Tensor:
    *rest, kv_bits = arguments
    return _attend(partial(native_attention.paged_attention, kv_bits=kv_bits), query, rest)


def _on_cuda(query: Tensor, *arguments: Any) -> Tensor:
    from lapidist.kernels.triton.attention import paged_attention

    *rest, kv_bits = arguments
    if kv_bits != 16:
        raise ValueError(f"attention over a KV cache of {kv_bits} bits runs on a CPU: use kv_bits=16 on CUDA")
    return _attend(paged_attention, query, rest)


def _attend(kernel: Callable[..., tuple[Tensor, Any]], query: Tensor, arguments: Sequence[Any]) -> Tensor:
    """Call a kernel with the operator's arguments as its Python side takes them."""
    keys, values, query_starts, kv_lengths, page_table, longest, *rest = arguments
    scale, window, softcap, mode, phi, recomputed = rest
    # Attention does not look at the slots.
    layout = PagedLayout(query_starts[:0], query_starts, kv_lengths, page_table, longest)
    softmax = Softmax(SoftmaxMode(mode), phi)
    output, count = kernel(query, keys, values, layout, scale, window, softcap, softmax)
    if recomputed is not None and softmax.mode == SoftmaxMode.UNIFIED:
        recomputed += count
    return output


LIBRARY.impl("paged_attention", _on_cpu, "CPU")
LIBRARY.impl("paged_attention", _on_cuda, "CUDA")


@register_flop_formula(torch.ops.lapidist.paged_attention, get_raw=True)
def _flops(
    query: Tensor,
    _keys: Tensor,
    _values: Tensor,
    query_starts: Tensor,
    kv_lengths: Tensor,
    _page_table: Tensor,
    _longest: int,
    _scale: float,
    window: int | None,
    *_rest: Any,
    **_options: Any,
) -> int:
    """Two products of a sequence's queries with the tokens that at least one of them sees."""
    _, heads, head_dim = query.shape
    total = 0
    for queries, kv_length in zip(query_starts.diff().tolist(), kv_lengths.tolist(), strict=True):
        total += queries * (kv_length if window is None else min(kv_length, window - 1 + queries))
    return 4 * heads * head_dim * total
