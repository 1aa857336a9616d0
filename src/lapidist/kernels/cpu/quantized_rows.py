"""Rows of 8-bit integers in the native library: of given rows, of normalized ones and of gated activations.

What the fused functions quantize is float32: the result of the operator is not rounded to the type of its input first.
They write ``codes`` int8 ``[rows, padded columns]``, ``scales`` float32 ``[rows]`` and ``sums`` int32
``[rows, groups]``.
"""

import torch
from torch import Tensor

from lapidist.kernels.cpu.library import TYPES, native


def quantize_rows(x: Tensor, codes: Tensor, scales: Tensor, sums: Tensor) -> None:
    """Of ``x`` ``[rows, columns]``; the rows may lie apart.

    Raises
    ------
    ValueError : x is not on the CPU.
    TypeError : x is none of float32, bfloat16 and float16.
    """
    check(x)
    x = _with_whole_columns(x)
    native().quantize_rows(
        TYPES[x.dtype],
        x.data_ptr(),
        x.stride(0),
        *_addresses(codes, scales, sums),
        *x.shape,
        torch.get_num_threads(),
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float, codes: Tensor, scales: Tensor, sums: Tensor) -> None:
    """Of ``x / sqrt(mean(x^2) + eps) * weight``; ``weight`` is float32 ``[columns]``. Raises as ``quantize_rows``."""
    check(x)
    x = _with_whole_columns(x)
    native().rms_norm_quantized(
        TYPES[x.dtype],
        x.data_ptr(),
        x.stride(0),
        weight.data_ptr(),
        eps,
        *_addresses(codes, scales, sums),
        *x.shape,
        torch.get_num_threads(),
    )


def silu_multiply(gate_up: Tensor, codes: Tensor, scales: Tensor, sums: Tensor) -> None:
    """Of ``silu(gate) * up`` of ``[rows, 2 * columns]``, the gate first. Raises as ``quantize_rows``."""
    check(gate_up)
    gate_up = gate_up.contiguous()
    rows, both = gate_up.shape
    native().silu_multiply_quantized(
        TYPES[gate_up.dtype],
        gate_up.data_ptr(),
        *_addresses(codes, scales, sums),
        rows,
        both // 2,
        torch.get_num_threads(),
    )


def check(x: Tensor) -> None:
    """Raises as ``quantize_rows``."""
    if x.device.type != "cpu":
        raise ValueError(
            f"quantized layers run on the CPU only, and this tensor is on {x.device}: move it there"
        )
    if x.dtype not in TYPES:
        raise TypeError(f"the native library quantizes float32, bfloat16 and float16, not {x.dtype}")


def _with_whole_columns(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 else x.contiguous()


def _addresses(codes: Tensor, scales: Tensor, sums: Tensor) -> tuple[int, int, int, int]:
    return codes.data_ptr(), codes.shape[1], scales.data_ptr(), sums.data_ptr()
