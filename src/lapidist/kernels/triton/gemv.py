"""The kernel for one to four rows times a weight: dot products without tensor cores."""

import triton
import triton.language as tl


@triton.jit
def gemv_kernel(
    out,
    x,
    weight,
    bias,
    n,
    k,
    x_stride,
    weight_stride,
    out_stride,
    HAS_BIAS: tl.constexpr,
    WHOLE_BLOCKS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """``out = x weight^T + bias``. Grid ``[ceil(n / COLUMNS)]``.

    Every thread has sums of its own, and they are added up across threads once, at the end.

    Parameters
    ----------
    x : ``[ROWS, k]``, one to four.
    weight : ``[n, k]``.
    WHOLE_BLOCKS : ``k`` is a multiple of ``DEPTH``.
    """
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    is_column = column < n
    weight_rows = weight + (column.to(tl.int64) * weight_stride)[:, None]
    first = tl.zeros([COLUMNS, DEPTH], tl.float32)
    second, third, fourth = first, first, first
    for start in tl.range(0, k, DEPTH, num_stages=4):
        channel = start + tl.arange(0, DEPTH)
        is_channel = tl.full([DEPTH], True, tl.int1) if WHOLE_BLOCKS else channel < k
        weights = tl.load(
            weight_rows + channel[None, :], mask=is_column[:, None] & is_channel[None, :], other=0.0
        ).to(tl.float32)
        first += weights * _inputs(x, channel, is_channel)
        if ROWS > 1:
            second += weights * _inputs(x + x_stride, channel, is_channel)
        if ROWS > 2:
            third += weights * _inputs(x + 2 * x_stride, channel, is_channel)
        if ROWS > 3:
            fourth += weights * _inputs(x + 3 * x_stride, channel, is_channel)
    shift = tl.zeros([COLUMNS], tl.float32)
    if HAS_BIAS:
        shift = tl.load(bias + column, mask=is_column, other=0.0).to(tl.float32)
    places = out + column
    tl.store(places, (tl.sum(first, 1) + shift).to(out.dtype.element_ty), mask=is_column)
    if ROWS > 1:
        tl.store(places + out_stride, (tl.sum(second, 1) + shift).to(out.dtype.element_ty), mask=is_column)
    if ROWS > 2:
        tl.store(places + 2 * out_stride, (tl.sum(third, 1) + shift).to(out.dtype.element_ty), mask=is_column)
    if ROWS > 3:
        tl.store(
            places + 3 * out_stride, (tl.sum(fourth, 1) + shift).to(out.dtype.element_ty), mask=is_column
        )


@triton.jit
def _inputs(x, channel, is_channel):
    return tl.load(x + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
