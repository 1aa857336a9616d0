"""The parts of a tile whose keys were split: kept by each program, added up by the last, always in the same order."""

import triton
import triton.language as tl

from lapidist.kernels.triton.softmax_step import UNIFIED


@triton.jit
def keep_part(part_outputs, part_sums, part, outputs, denominators, maxima, is_row, MODE: tl.constexpr):
    """Store one part of a result.

    Parameters
    ----------
    part_outputs : float32 ``[parts, ROWS, WIDTH]`` of this result.
    part_sums : float32 ``[parts, 2, ROWS]`` of this result: denominators and, but in mode unified, maxima.
    """
    ROWS: tl.constexpr = outputs.shape[0]
    WIDTH: tl.constexpr = outputs.shape[1]
    row = tl.arange(0, ROWS)
    places = part_outputs + part * (ROWS * WIDTH) + row[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    tl.store(places, outputs, mask=is_row[:, None])
    sums = part_sums + part * (2 * ROWS) + row
    tl.store(sums, denominators, mask=is_row)
    if MODE != UNIFIED:
        tl.store(sums + ROWS, maxima, mask=is_row)


@triton.jit
def merge_parts(
    part_outputs, part_sums, parts, is_row, WIDTH: tl.constexpr, MERGED: tl.constexpr, MODE: tl.constexpr
):
    """``(outputs, denominators)`` of the whole, ``MERGED`` parts at once so that their loads overlap.

    Mode unified adds. The others first bring the parts to a common maximum (the log-sum-exp merge of split
    attention).
    """
    ROWS: tl.constexpr = is_row.shape[0]
    row = tl.arange(0, ROWS)
    cell = row[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
    outputs = tl.zeros([ROWS, WIDTH], tl.float32)
    denominators = tl.zeros([ROWS], tl.float32)
    maxima = tl.full([ROWS], float("-inf"), tl.float32)
    for first in range(0, parts, MERGED):
        part = first + tl.arange(0, MERGED)
        is_part_row = (part < parts)[:, None] & is_row[None, :]
        places = part_outputs + part[:, None, None] * (ROWS * WIDTH) + cell[None, :, :]
        some = tl.load(places, mask=is_part_row[:, :, None], other=0.0, cache_modifier=".cg")
        sums = part_sums + part[:, None] * (2 * ROWS) + row[None, :]
        some_denominators = tl.load(sums, mask=is_part_row, other=0.0, cache_modifier=".cg")
        if MODE != UNIFIED:
            some_maxima = tl.load(sums + ROWS, mask=is_part_row, other=float("-inf"), cache_modifier=".cg")
            highest = tl.maximum(maxima, tl.max(some_maxima, 0))
            finite = tl.where(highest == float("-inf"), 0.0, highest)
            factors = tl.exp2(some_maxima - finite[None, :])
            decay = tl.exp2(maxima - finite)
            some = some * factors[:, :, None]
            some_denominators = some_denominators * factors
            outputs = outputs * decay[:, None]
            denominators = denominators * decay
            maxima = highest
        outputs += tl.sum(some, 0)
        denominators += tl.sum(some_denominators, 0)
    return outputs, denominators
