"""Linear layers over packed weights in the native library.

A weight is packed once into the order in which it is read. Three functions multiply by it; they differ in how their
loops are cut and give the same numbers to the last bit, so that a row's result does not depend on the batch it is in.
"""

import math
from functools import partial

import torch
from torch import Tensor

from lapidist.kernels.cpu import weight_memory
from lapidist.kernels.cpu.library import TYPES, native
from lapidist.kernels.dispatch import Implementation

# Outputs of a panel (``native/kernels.h``).
_PANEL = 64


def pack_weight(weight: Tensor) -> Tensor:
    """``[outputs, columns]`` to ``[panels, columns rounded up to even, 64]``, zero-padded (``native/linear.cpp``).

    Raises
    ------
    TypeError : the dtype is none of float32, bfloat16 and float16.
    """
    if weight.dtype not in TYPES:
        raise TypeError(f"the native library multiplies float32, bfloat16 and float16, not {weight.dtype}")
    weight = weight.contiguous()
    outputs, columns = weight.shape
    shape = -(-outputs // _PANEL), -(-columns // 2) * 2, _PANEL
    packed = weight_memory.allocate(math.prod(shape) * weight.itemsize).view(weight.dtype).view(shape)
    native().pack_weight(
        TYPES[weight.dtype],
        weight.data_ptr(),
        packed.data_ptr(),
        columns,
        outputs,
        torch.get_num_threads(),
    )
    return packed


def multiply(name: str, x: Tensor, packed: Tensor, out: Tensor, bias: Tensor | None = None) -> None:
    """``out = x W^T + bias`` by the function ``name``: gemv, flat_gemm or gemm.

    Parameters
    ----------
    x : ``[rows, columns]``; the rows may lie apart.
    packed : the weight ``[outputs, columns]`` as ``pack_weight`` gives it.
    out : ``[rows, outputs]``, contiguous.
    bias : ``[outputs]``.

    Raises
    ------
    TypeError, ValueError : x does not fit the weight.
    """
    if x.dtype != packed.dtype or x.shape[1] not in (packed.shape[1], packed.shape[1] - 1):
        error = ValueError if x.dtype == packed.dtype else TypeError
        raise error(
            f"x {list(x.shape)} {x.dtype} does not fit the packed weight {list(packed.shape)} {packed.dtype}"
        )
    if x.stride(1) != 1:
        x = x.contiguous()
    rows, columns = x.shape
    getattr(native(), name)(
        TYPES[packed.dtype],
        x.data_ptr(),
        x.stride(0),
        packed.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        out.data_ptr(),
        rows,
        columns,
        out.shape[1],
        torch.get_num_threads(),
    )


# In the order in which they win as the rows become more. GEMM is GEMV until its rows are more than a block
# (``native/linear.cpp``).
IMPLEMENTATIONS = (
    Implementation("gemv", partial(multiply, "gemv"), max_rows=16),
    Implementation("flat_gemm", partial(multiply, "flat_gemm"), max_rows=128),
    Implementation("gemm", partial(multiply, "gemm"), min_rows=17),
)
