"""One block of keys of a tile: from products to weights, and the sums that grow by them.

Scores are in units of log 2 throughout: the hardware's exponential is base 2.
"""

import triton
import triton.language as tl

from lapidist.kernels.softmax import LAZY_THRESHOLD, SoftmaxMode
from lapidist.kernels.triton.dot import FLOAT32, dot

ONLINE = tl.constexpr(int(SoftmaxMode.ONLINE))
LAZY = tl.constexpr(int(SoftmaxMode.LAZY))
UNIFIED = tl.constexpr(int(SoftmaxMode.UNIFIED))
_THRESHOLD = tl.constexpr(LAZY_THRESHOLD)
_SPREAD_ROWS = tl.constexpr(16)
_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def base2_scores(products, inner, outer, CAPPED: tl.constexpr):
    """Scores of the products ``q k``: ``inner * products``, or ``outer * tanh(inner * products)`` with a cap."""
    scores = inner * products
    if CAPPED:
        scores = outer * _tanh(scores)
    return scores


@triton.jit
def _tanh(x):
    # The exponential only ever decays, so there is no overflow.
    decay = tl.exp2(tl.abs(x) * (-2 * _LOG2E))
    size = (1 - decay) / (1 + decay)
    return tl.where(x < 0, -size, size)


@triton.jit
def empty_sums(ROWS: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr, MODE: tl.constexpr):
    """``(outputs, denominators, maxima)`` before the first block of keys."""
    outputs = tl.zeros([ROWS, WIDTH], tl.float32)
    maxima = tl.full([ROWS], float("-inf"), tl.float32)
    # Mode unified never rescales: in a small tile, whose rows are spread over all warps, the weights of a row are
    # added up across them once, at the end. In a large one a warp has whole rows, and registers are scarce.
    if MODE == UNIFIED and ROWS <= _SPREAD_ROWS:
        denominators = tl.zeros([ROWS, KEYS], tl.float32)
    else:
        denominators = tl.zeros([ROWS], tl.float32)
    return outputs, denominators, maxima


@triton.jit
def add_block(outputs, denominators, maxima, scores, shifts, values, MODE: tl.constexpr):
    """The sums with one more block of keys.

    Parameters
    ----------
    scores : ``[ROWS, KEYS]``, minus infinity where a row does not see a key.
    shifts : ``[ROWS]``, what mode unified subtracts from the scores; the other modes ignore it.
    values : ``[KEYS, WIDTH]``.
    """
    if MODE == UNIFIED:
        weights, factors = _weights(tl.exp2(scores - shifts[:, None]), values, MODE)
        denominators += _row_weights(weights, scores.shape[0], MODE)
    else:
        highest = tl.max(scores, 1)
        if MODE == LAZY:
            adopted = tl.where(highest > maxima + _THRESHOLD, highest, maxima)
        else:
            adopted = tl.maximum(maxima, highest)
        # A row that has seen no key yet: minus infinity from itself would not be a number.
        finite = tl.where(adopted == float("-inf"), 0.0, adopted)
        decay = tl.exp2(maxima - finite)
        weights, factors = _weights(tl.exp2(scores - finite[:, None]), values, MODE)
        if MODE == LAZY:
            if tl.max((adopted > maxima).to(tl.int32), 0) > 0:
                outputs = outputs * decay[:, None]
        else:
            outputs = outputs * decay[:, None]
        denominators = denominators * decay + _row_weights(weights, scores.shape[0], MODE)
        maxima = adopted
    # Where the values are float16, float32 weights are exact in TF32 already.
    PRECISION: tl.constexpr = "tf32" if values.dtype == tl.float16 else FLOAT32
    outputs = dot(weights, factors, outputs, PRECISION)
    return outputs, denominators, maxima


@triton.jit
def _weights(weights, values, MODE: tl.constexpr):
    """Weights and values in the type that they are multiplied in. The denominator adds up these rounded weights.

    With a constant known beforehand the weights span the exponents of float32. Bfloat16 has them too; float16 has not,
    so there the product is TF32, which holds a float16 value exactly. The weights are cut to its 10 bits here, so that
    numerator and denominator are of the same numbers.
    """
    if values.dtype == tl.float16 and MODE == UNIFIED:
        weights = (weights.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)
        values = values.to(tl.float32)
    else:
        weights = weights.to(values.dtype)
    return weights, values


@triton.jit
def _row_weights(weights, ROWS: tl.constexpr, MODE: tl.constexpr):
    """What the denominators grow by: see ``empty_sums``."""
    weights = weights.to(tl.float32)
    if MODE != UNIFIED or ROWS > _SPREAD_ROWS:
        weights = tl.sum(weights, 1)
    return weights


@triton.jit
def row_totals(denominators, ROWS: tl.constexpr, MODE: tl.constexpr):
    """Denominators ``[ROWS]`` of the sums."""
    if MODE == UNIFIED and ROWS <= _SPREAD_ROWS:
        denominators = tl.sum(denominators, 1)
    return denominators
