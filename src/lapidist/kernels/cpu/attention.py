"""Attention over a paged KV cache in the native library."""

import torch
from torch import Tensor

from lapidist.kernels.cpu.library import TYPES, native, with_whole_rows
from lapidist.kernels.kv_quantization import tokens_of_page
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax

# Keys of one partial sum where a sequence has few queries; fixed, so that results do not depend on the threads.
SPLIT_TOKENS = 512


def paged_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    layout: PagedLayout,
    scale: float,
    window: int | None,
    softcap: float | None,
    softmax: Softmax,
    split_tokens: int = SPLIT_TOKENS,
    kv_bits: int = 16,
) -> tuple[Tensor, int]:
    """See ``lapidist.kernels.attention.paged_attention``; ``split_tokens`` is for tests of the split.

    Returns
    -------
    The output, and how many rows (token, head) of mode unified were computed again.

    Raises
    ------
    TypeError : queries, keys and values differ in dtype, though the cache is not quantized.
    """
    if kv_bits == 16 and not query.dtype == keys.dtype == values.dtype:
        raise TypeError(
            f"queries are {query.dtype}, keys {keys.dtype} and values {values.dtype}: make them one dtype"
        )
    tokens, heads, head_dim = query.shape
    kv_heads = keys.shape[1]
    page_size = keys.shape[2] if kv_bits == 16 else tokens_of_page(keys.shape[2], head_dim, kv_bits)
    query = with_whole_rows(query)
    output = torch.empty(tokens, heads, head_dim, dtype=query.dtype)
    if tokens == 0:
        return output, 0
    phi = softmax.phi
    recomputed = native().attention(
        TYPES[query.dtype],
        query.data_ptr(),
        query.stride(0),
        keys.data_ptr(),
        values.data_ptr(),
        output.data_ptr(),
        layout.query_starts.data_ptr(),
        layout.kv_lengths.data_ptr(),
        layout.page_table.data_ptr(),
        layout.page_table.stride(0),
        len(layout.kv_lengths),
        heads,
        kv_heads,
        head_dim,
        page_size,
        scale,
        softcap or 0.0,
        window or 0,
        softmax.mode,
        0 if phi is None else phi.data_ptr(),
        split_tokens,
        torch.get_num_threads(),
        kv_bits,
    )
    return output, recomputed
