"""Paged attention on a GPU: prompts, decoding sequences and batches of both in one call, without a look at the host."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax
from lapidist.kernels.triton.attention_kernel import attention_kernel
from lapidist.kernels.triton.gpu import limits
from lapidist.kernels.triton.splits import KeySplits, split_keys
from lapidist.kernels.triton.tile_shape import TileShape, few_queries, tile_shape
from lapidist.kernels.triton.workspace import Workspace

_LOG2E = 1.4426950408889634
_MOST_HEAD_DIM, _MOST_GROUP = 256, 128
_LEAST_PAGE_SIZE = 16
_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# A part's keys are no more than so many where the number of programs does not already ask for less.
_LONGEST_PART = 4096
_MOST_BYTES_OF_PARTS = 64 << 20
# A tile of one query is small: two programs share a multiprocessor and hide each other's waits.
_PROGRAMS_OF_FEW = 2


@dataclass(frozen=True)
class _Launch:
    """One launch of the kernel: the sequences of ``least`` to ``most`` new tokens."""

    shape: TileShape
    splits: KeySplits
    tiles: int
    least: int
    most: int
    one_tile: bool


def paged_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    layout: PagedLayout,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    softmax: Softmax | None = None,
    *,
    splits: int | None = None,
    workspace: Workspace | None = None,
) -> tuple[Tensor, Tensor]:
    """Causal attention of every sequence's new tokens over its own context.

    Query ``i`` of a sequence sits at position ``kv_length - query_length + i``. Keys and values are read once
    per KV head and tile of queries. Results are bitwise repeatable.

    Parameters
    ----------
    query : ``[tokens, heads, head_dim]``, channels contiguous; bfloat16, float16 or float32.
    keys, values : one layer of the cache, ``[num_pages, kv_heads, page_size, head_dim]``, of the query's dtype; the new
        tokens are in it already. ``page_size`` is a power of two, at least 16.
    scale : factor on the scores.
    window : tokens that a query sees, itself included; None for all.
    softcap : scores become ``softcap * tanh(scores / softcap)`` (Gemma 2, arXiv 2408.00118).
    softmax : mode and constant; None is mode unified with ``phi`` zero.
    splits : parts that the keys of every tile are divided into (if it has so many blocks); None chooses.
    workspace : counters to use in place of new ones; saves clearing them.

    Returns
    -------
    ``(output, recomputed)``: ``[tokens, heads, head_dim]``; a row that sees no key is zeros. And int64 ``[]``
    on the device, the number of (token, head) rows that failed the guard of mode unified and were computed again in
    mode online; with a workspace it goes on counting from call to call.

    Raises
    ------
    ValueError : a shape, stride or dtype is not as described.
    """
    softmax = softmax or Softmax()
    _check(query, keys, values)
    tokens, heads, head_dim = query.shape
    kv_heads = keys.shape[1]
    launches = _plan(query, keys, layout, window, splits) if tokens else []
    tickets = sum(launch.tiles * kv_heads for launch in launches)
    workspace = workspace or Workspace(tickets, query.device)
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    inner, outer = (scale * _LOG2E, 1.0) if softcap is None else (scale / softcap, softcap * _LOG2E)
    for launch in launches:
        shape, parts = launch.shape, launch.splits.count
        results = launch.tiles * kv_heads if parts > 1 else 0
        with torch.cuda.device_of(query):
            attention_kernel[(launch.tiles, kv_heads, parts)](
                output,
                query,
                keys,
                values,
                softmax.phi,
                layout.query_starts,
                layout.kv_lengths,
                layout.page_table,
                output.new_empty((results, parts, shape.rows, shape.width), dtype=torch.float32),
                output.new_empty((results, parts, 2, shape.rows), dtype=torch.float32),
                workspace.counters(results),
                len(layout.kv_lengths),
                launch.least,
                launch.most,
                window or 0,
                parts,
                launch.splits.least_blocks,
                *query.stride()[:2],
                *keys.stride()[:3],
                layout.page_table.stride(0),
                inner,
                outer,
                MODE=int(softmax.mode),
                HAS_PHI=softmax.phi is not None,
                CAPPED=softcap is not None,
                WINDOWED=window is not None,
                ONE_TILE=launch.one_tile,
                GROUP=heads // kv_heads,
                QUERIES=shape.queries,
                ROWS=shape.rows,
                KEYS=shape.keys,
                HEAD_DIM=head_dim,
                WIDTH=shape.width,
                PAGE_SIZE=keys.shape[2],
                MERGED=max(1, 8192 // (shape.rows * shape.width)),
                num_warps=shape.warps,
                num_stages=shape.stages,
                enable_fp_fusion=True,
            )
    return output, workspace.recomputed


def _plan(
    query: Tensor, keys: Tensor, layout: PagedLayout, window: int | None, splits: int | None
) -> list[_Launch]:
    """The launches of a call: sequences with few new tokens, and those with many."""
    tokens, heads, head_dim = query.shape
    _, kv_heads, page_size, _ = keys.shape
    sequences, longest = len(layout.kv_lengths), layout.max_query_length
    group = heads // kv_heads
    gpu = limits(query.device)
    context = layout.page_table.shape[1] * page_size
    few = few_queries(group, longest)
    # With as many tokens as this all sequences are prompts of one length.
    has_few = longest <= few or tokens < sequences * longest
    launches = []
    for is_few in (True, False):
        if not (has_few if is_few else longest > few):
            continue
        shape = tile_shape(group, head_dim, query.dtype, few if is_few else None, gpu.shared_bytes)
        tiles = sequences if is_few else tokens // shape.queries + sequences
        seen = context if window is None else min(context, window - 1 + shape.queries)
        slots = gpu.multiprocessors * (_PROGRAMS_OF_FEW if is_few else 1)
        part_bytes = tiles * kv_heads * shape.rows * shape.width * 4
        chosen = split_keys(
            tiles * kv_heads,
            -(-seen // shape.keys),
            slots,
            _LONGEST_PART // shape.keys,
            _MOST_BYTES_OF_PARTS // part_bytes,
        )
        least, most = (1, few) if is_few else (few + 1 if has_few else 1, longest)
        launches.append(
            _Launch(shape, KeySplits(splits, 1) if splits else chosen, tiles, least, most, is_few)
        )
    return launches


def _check(query: Tensor, keys: Tensor, values: Tensor) -> None:
    heads, head_dim = query.shape[1:]
    kv_heads, page_size = keys.shape[1:3]
    if query.dtype not in _DTYPES or keys.dtype != query.dtype or values.dtype != query.dtype:
        raise ValueError(
            f"query, keys and values must share bfloat16, float16 or float32, got {query.dtype}, {keys.dtype} "
            f"and {values.dtype}"
        )
    if keys.shape[3] != head_dim or values.shape != keys.shape or head_dim > _MOST_HEAD_DIM:
        raise ValueError(
            f"query, keys and values must share a head_dim of at most {_MOST_HEAD_DIM}, got "
            f"{list(query.shape)}, {list(keys.shape)} and {list(values.shape)}"
        )
    if heads % kv_heads or heads // kv_heads > _MOST_GROUP:
        raise ValueError(
            f"{heads} heads must be a multiple, at most {_MOST_GROUP}-fold, of {kv_heads} KV heads"
        )
    if page_size < _LEAST_PAGE_SIZE or page_size & (page_size - 1):
        raise ValueError(f"page_size must be a power of two from {_LEAST_PAGE_SIZE} on, got {page_size}")
    if query.stride(2) != 1 or keys.stride(3) != 1 or values.stride() != keys.stride():
        raise ValueError("channels must be contiguous, and keys and values of the same strides")
