"""The matrix product that the kernels share."""

import os

import triton
import triton.language as tl

# Triton's interpreter multiplies the bit patterns of bfloat16; it gets float32 operands, which hold the same numbers.
IS_INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"))

# Float32 on tensor cores with all but a few of its bits: a sum of three products in TF32.
FLOAT32 = tl.constexpr("tf32x3")


@triton.jit
def dot(a, b, sums, PRECISION: tl.constexpr):
    """``sums + a b`` in float32; ``PRECISION`` tells what becomes of float32 operands (``FLOAT32`` or ``tf32``)."""
    if IS_INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision=PRECISION)
