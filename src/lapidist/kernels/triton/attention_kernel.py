"""The attention kernel: a program per tile of queries, KV head and part of the keys; the last of a tile merges.

Flash attention (arXiv 2205.14135) with split keys. In mode unified the parts of a row are merged by addition
(FlashDecoding++, arXiv 2311.01282); a row whose sums left the range of float32 is computed again by the program that
noticed. There is no second launch.
"""

import triton
import triton.language as tl

from lapidist.kernels.softmax import LEAST_DENOMINATOR
from lapidist.kernels.triton.key_loop import attend
from lapidist.kernels.triton.merge import keep_part, merge_parts
from lapidist.kernels.triton.softmax_step import ONLINE, UNIFIED
from lapidist.kernels.triton.ticket import arrives_last

_LEAST = tl.constexpr(LEAST_DENOMINATOR)
_LOG2E = tl.constexpr(1.4426950408889634)


# What changes from call to call must not be compiled into the kernel.
@triton.jit(
    do_not_specialize=[
        "sequences",
        "least_queries",
        "most_queries",
        "window",
        "splits",
        "least_blocks",
        "table_stride",
    ]
)
def attention_kernel(
    output,
    query,
    keys,
    values,
    phi,
    query_starts,
    kv_lengths,
    page_table,
    part_outputs,
    part_sums,
    counters,
    sequences,
    least_queries,
    most_queries,
    window,
    splits,
    least_blocks,
    token_stride,
    query_head_stride,
    page_stride,
    kv_head_stride,
    slot_stride,
    table_stride,
    inner,
    outer,
    MODE: tl.constexpr,
    HAS_PHI: tl.constexpr,
    CAPPED: tl.constexpr,
    WINDOWED: tl.constexpr,
    ONE_TILE: tl.constexpr,
    GROUP: tl.constexpr,
    QUERIES: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    MERGED: tl.constexpr,
):
    """Grid ``[tiles, kv_heads, splits]``.

    A tile is ``QUERIES`` queries of one sequence and the ``GROUP`` heads that share a KV head: query ``r // GROUP`` and
    head ``r % GROUP`` of the group are its row ``r``; the ``ROWS`` are these and padding.

    Parameters
    ----------
    least_queries, most_queries : sequences with fewer or more new tokens are another launch's.
    part_outputs, part_sums : see ``keep_part``; room for every tile, KV head and split.
    counters : see ``Workspace.counters``; a ticket for every tile and KV head if there are splits.
    ONE_TILE : tile ``t`` is sequence ``t``, none has more than ``QUERIES`` new tokens; else see ``_find_tile``.
    MERGED : parts that are added up at once.
    """
    tile, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if ONE_TILE:
        sequence = tile
        first_query = 0
    else:
        # The last queries of a prompt see most keys: begin with them.
        sequence, first_query = _find_tile(query_starts, tl.num_programs(0) - 1 - tile, sequences, QUERIES)
    query_start = tl.load(query_starts + sequence)
    length = tl.load(query_starts + sequence + 1) - query_start
    past = tl.load(kv_lengths + sequence) - length
    if (first_query >= length) | (length < least_queries) | (length > most_queries):
        return

    end = tl.maximum(past + tl.minimum(first_query + QUERIES, length), 0)
    begin = 0
    if WINDOWED:
        begin = tl.maximum(past + first_query - window + 1, 0) // KEYS * KEYS
    blocks = tl.cdiv(tl.maximum(end - begin, 0), KEYS)
    part_blocks = tl.maximum(tl.cdiv(blocks, splits), least_blocks)
    parts = tl.maximum(tl.cdiv(blocks, part_blocks), 1)
    if split >= parts:
        return

    row = tl.arange(0, ROWS)
    channel = tl.arange(0, WIDTH)
    tile_query = first_query + row // GROUP
    is_row = (row < QUERIES * GROUP) & (tile_query < length)
    positions = tl.where(is_row, past + tile_query, -1)
    head = kv_head * GROUP + row % GROUP
    token = (query_start + tile_query).to(tl.int64)
    is_element = is_row[:, None] & (channel < HEAD_DIM)[None, :]
    rows = tl.load(
        query + (token * token_stride + head * query_head_stride)[:, None] + channel[None, :],
        mask=is_element,
        other=0.0,
    )
    shifts = tl.zeros([ROWS], tl.float32)
    if HAS_PHI:
        shifts = tl.load(phi + head, mask=is_row, other=0.0) * _LOG2E
    keys += kv_head.to(tl.int64) * kv_head_stride
    values += kv_head.to(tl.int64) * kv_head_stride
    pages = page_table + sequence.to(tl.int64) * table_stride
    common_end = (past + first_query + 1) // KEYS * KEYS
    # A single query's tile has one block that it sees in part; a second loop would not pay.
    HAS_COMMON: tl.constexpr = not (WINDOWED or ONE_TILE)

    part_begin = begin + split * part_blocks * KEYS
    part_end = tl.minimum(part_begin + part_blocks * KEYS, end)
    outputs, denominators, maxima = attend(
        rows, positions, shifts, keys, values, pages, part_begin, common_end, part_end, window,
        page_stride, slot_stride, inner, outer,
        MODE, CAPPED, WINDOWED, HAS_COMMON, PAGE_SIZE, HEAD_DIM, KEYS,
    )  # fmt: skip
    is_last = parts == 1
    if parts > 1:
        result = (tl.program_id(0) * tl.num_programs(1) + kv_head).to(tl.int64)
        part_outputs += result * splits * (ROWS * WIDTH)
        part_sums += result * splits * (2 * ROWS)
        keep_part(part_outputs, part_sums, split, outputs, denominators, maxima, is_row, MODE)
        is_last = arrives_last(counters + 1 + result, parts)
        if is_last:
            outputs, denominators = merge_parts(part_outputs, part_sums, parts, is_row, WIDTH, MERGED, MODE)
    if is_last:
        places = output + (token * (tl.num_programs(1) * GROUP) + head)[:, None] * HEAD_DIM + channel[None, :]
        divided = _divide(outputs, denominators)
        fails = tl.full([ROWS], False, tl.int1)
        if MODE == UNIFIED:
            fails = (positions >= 0) & ~_is_sound(divided, denominators)
        tl.store(places, divided.to(output.dtype.element_ty), mask=is_element & ~fails[:, None])
        if MODE == UNIFIED:
            failures = tl.sum(fails.to(tl.int32), 0)
            if failures > 0:
                tl.atomic_add(counters, failures.to(tl.int64), sem="relaxed")
                outputs, denominators, maxima = attend(
                    rows, positions, shifts, keys, values, pages, begin, common_end, end, window,
                    page_stride, slot_stride, inner, outer,
                    ONLINE, CAPPED, WINDOWED, HAS_COMMON, PAGE_SIZE, HEAD_DIM, KEYS,
                )  # fmt: skip
                divided = _divide(outputs, denominators)
                tl.store(places, divided.to(output.dtype.element_ty), mask=is_element & fails[:, None])


@triton.jit
def _find_tile(query_starts, tile, sequences, QUERIES: tl.constexpr):
    """``(sequence, first_query)`` of a tile when every sequence has tiles enough for its queries.

    Sequence ``s`` gets the tiles from ``query_starts[s] // QUERIES + s`` on. That is at least as many as it needs;
    ``first_query`` of a spare one lies behind its last query.
    """
    low = 0
    high = sequences
    while high - low > 1:
        middle = (low + high) // 2
        if tl.load(query_starts + middle) // QUERIES + middle <= tile:
            low = middle
        else:
            high = middle
    return low, (tile - tl.load(query_starts + low) // QUERIES - low) * QUERIES


@triton.jit
def _divide(outputs, denominators):
    """Outputs over denominators; a row that sees no key has zeros in both and gives zeros."""
    return outputs * tl.where(denominators != 0, 1.0 / denominators, 0.0)[:, None]


@triton.jit
def _is_sound(divided, denominators):
    """Whether a row of mode unified can be trusted.

    An infinite denominator alone would give finite zeros; a tiny one tells that other terms may have underflowed.
    """
    is_finite = tl.min((tl.abs(divided) < float("inf")).to(tl.int32), 1) > 0
    return is_finite & (denominators < float("inf")) & (denominators >= _LEAST)
