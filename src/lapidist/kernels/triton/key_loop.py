"""A tile of query rows against a range of the keys of one sequence."""

import triton
import triton.language as tl

from lapidist.kernels.triton.dot import FLOAT32, dot
from lapidist.kernels.triton.softmax_step import add_block, base2_scores, empty_sums, row_totals


@triton.jit
def attend(
    query,
    positions,
    shifts,
    keys,
    values,
    pages,
    begin,
    common_end,
    end,
    window,
    page_stride,
    slot_stride,
    inner,
    outer,
    MODE: tl.constexpr,
    CAPPED: tl.constexpr,
    WINDOWED: tl.constexpr,
    HAS_COMMON: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    KEYS: tl.constexpr,
):
    """``(outputs, denominators, maxima)``: float32 ``[ROWS, WIDTH]``, ``[ROWS]``, ``[ROWS]``; not yet divided.

    Parameters
    ----------
    query : ``[ROWS, WIDTH]``.
    positions : int32 ``[ROWS]``, the last key that a row sees; -1 for padding.
    shifts : see ``add_block``.
    keys, values : where this KV head starts in page 0.
    pages : where this sequence's row of the page table starts.
    begin, end : the range; ``begin`` is a multiple of ``KEYS``.
    common_end : with ``HAS_COMMON``, a multiple of ``KEYS``; keys of the range before it are seen by every row.
    window : see ``paged_attention``; only with ``WINDOWED``.
    inner, outer : see ``base2_scores``.
    """
    outputs, denominators, maxima = empty_sums(query.shape[0], KEYS, query.shape[1], MODE)
    masked_begin = begin
    if HAS_COMMON:
        masked_begin = tl.minimum(tl.maximum(begin, common_end), end)
        for start in range(begin, masked_begin, KEYS):
            scores, value = _read_block(
                query, positions, keys, values, pages, start, end, window, page_stride, slot_stride, inner, outer,
                False, CAPPED, WINDOWED, PAGE_SIZE, HEAD_DIM, KEYS,
            )  # fmt: skip
            outputs, denominators, maxima = add_block(
                outputs, denominators, maxima, scores, shifts, value, MODE
            )
    for start in range(masked_begin, end, KEYS):
        scores, value = _read_block(
            query, positions, keys, values, pages, start, end, window, page_stride, slot_stride, inner, outer,
            True, CAPPED, WINDOWED, PAGE_SIZE, HEAD_DIM, KEYS,
        )  # fmt: skip
        outputs, denominators, maxima = add_block(outputs, denominators, maxima, scores, shifts, value, MODE)
    return outputs, row_totals(denominators, query.shape[0], MODE), maxima


@triton.jit
def _read_block(
    query,
    positions,
    keys,
    values,
    pages,
    start,
    end,
    window,
    page_stride,
    slot_stride,
    inner,
    outer,
    MASKED: tl.constexpr,
    CAPPED: tl.constexpr,
    WINDOWED: tl.constexpr,
    PAGE_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Scores ``[ROWS, KEYS]`` and values ``[KEYS, WIDTH]`` of the keys from ``start`` on."""
    WIDTH: tl.constexpr = query.shape[1]
    tokens = start + tl.arange(0, KEYS)
    channels = tl.arange(0, WIDTH)
    # Memory behind the last token may hold anything, and zero times that would be anything too.
    present = tokens < end if MASKED else tl.full([KEYS], True, tl.int1)
    page = tl.load(pages + tokens // PAGE_SIZE, mask=present, other=0)
    slots = page.to(tl.int64) * page_stride + tokens % PAGE_SIZE * slot_stride
    places = slots[:, None] + channels[None, :]
    mask = present[:, None] & (channels < HEAD_DIM)[None, :] if HEAD_DIM < WIDTH else present[:, None]
    key = tl.load(keys + places, mask=mask, other=0.0)
    products = dot(query, key.T, tl.zeros([query.shape[0], KEYS], tl.float32), FLOAT32)
    scores = base2_scores(products, inner, outer, CAPPED)
    if MASKED:
        sees = tokens[None, :] <= positions[:, None]
        if WINDOWED:
            sees &= tokens[None, :] > positions[:, None] - window
        scores = tl.where(sees, scores, float("-inf"))
    value = tl.load(values + places, mask=mask, other=0.0)
    return scores, value
