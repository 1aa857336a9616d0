"""The kernel for a few rows times a weight: the weight is the tall operand, and its input channels are split.

The flat GEMM of FlashDecoding++ (arXiv 2311.01282, section 4) pads the few rows to the least that tensor cores take
and walks the input channels in order; its small weights leave most of a GPU idle. Here they are split as well, and the
last program of an output tile adds up the parts, always in the same order.
"""

import triton
import triton.language as tl

from lapidist.kernels.triton.dot import FLOAT32, dot
from lapidist.kernels.triton.ticket import arrives_last


@triton.jit(do_not_specialize=["rows", "splits"])
def flat_gemm_kernel(
    out,
    x,
    weight,
    bias,
    parts_of_sums,
    counters,
    rows,
    n,
    k,
    splits,
    x_stride,
    weight_stride,
    out_stride,
    HAS_BIAS: tl.constexpr,
    WHOLE_BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    MERGED: tl.constexpr,
):
    """``out = x weight^T + bias``. Grid ``[ceil(n / COLUMNS), splits]``.

    Parameters
    ----------
    x : ``[rows, k]``, at most ``ROWS``.
    weight : ``[n, k]``.
    parts_of_sums : float32 ``[tiles, splits, ROWS, COLUMNS]``.
    counters : see ``Workspace.counters``; a ticket for every tile if there are splits.
    WHOLE_BLOCKS : ``k`` is a multiple of ``DEPTH``.
    MERGED : parts that are added up at once.
    """
    tile, split = tl.program_id(0), tl.program_id(1)
    blocks = tl.cdiv(k, DEPTH)
    part_blocks = tl.cdiv(blocks, splits)
    parts = tl.cdiv(blocks, part_blocks)
    if split >= parts:
        return
    column = tile * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.arange(0, ROWS)
    is_output = (column < n)[:, None] & (row < rows)[None, :]
    weight_rows = weight + (column.to(tl.int64) * weight_stride)[:, None]
    x_rows = x + (row.to(tl.int64) * x_stride)[None, :]
    sums = tl.zeros([COLUMNS, ROWS], tl.float32)
    begin = split * part_blocks * DEPTH
    for start in range(begin, tl.minimum(begin + part_blocks * DEPTH, k), DEPTH):
        channel = start + tl.arange(0, DEPTH)
        is_channel = tl.full([DEPTH], True, tl.int1) if WHOLE_BLOCKS else channel < k
        weights = tl.load(
            weight_rows + channel[None, :], mask=(column < n)[:, None] & is_channel[None, :], other=0.0
        )
        inputs = tl.load(
            x_rows + channel[:, None], mask=(row < rows)[None, :] & is_channel[:, None], other=0.0
        )
        sums = dot(weights, inputs, sums, FLOAT32)

    is_last = parts == 1
    if parts > 1:
        cell = row[None, :] * COLUMNS + tl.arange(0, COLUMNS)[:, None]
        parts_of_sums += tile.to(tl.int64) * splits * (ROWS * COLUMNS)
        tl.store(parts_of_sums + split * (ROWS * COLUMNS) + cell, sums, mask=is_output)
        is_last = arrives_last(counters + 1 + tile, parts)
        if is_last:
            sums = _merge(parts_of_sums, parts, cell, is_output, MERGED)
    if is_last:
        if HAS_BIAS:
            sums += tl.load(bias + column, mask=column < n, other=0.0).to(tl.float32)[:, None]
        places = out + (row.to(tl.int64) * out_stride)[None, :] + column[:, None]
        tl.store(places, sums.to(out.dtype.element_ty), mask=is_output)


@triton.jit
def _merge(parts_of_sums, parts, cell, is_output, MERGED: tl.constexpr):
    COLUMNS: tl.constexpr = cell.shape[0]
    ROWS: tl.constexpr = cell.shape[1]
    sums = tl.zeros([COLUMNS, ROWS], tl.float32)
    for first in range(0, parts, MERGED):
        part = first + tl.arange(0, MERGED)
        some = tl.load(
            parts_of_sums + part[:, None, None] * (ROWS * COLUMNS) + cell[None, :, :],
            mask=(part < parts)[:, None, None] & is_output[None, :, :],
            other=0.0,
            cache_modifier=".cg",
        )
        sums += tl.sum(some, 0)
    return sums
