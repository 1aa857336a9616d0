"""Rows of 8-bit integers in the native library: of given rows, of normalized ones and of gated activations.

What the fused functions quantize is float32: the result of the operator is not rounded to the type of its input first.
They write to an address, that of the memory of a ``lapidist.kernels.quantized_rows.QuantizedRows``.
"""

import torch
from torch import Tensor

from lapidist.kernels.cpu.library import TYPES, native


def row_codes_bytes(columns: int) -> int:
    """Bytes from one row's codes to the next one's."""
    return native().row_codes_bytes(columns)


def quantize_rows(x: Tensor, out: int) -> None:
    """Of ``x`` ``[rows, columns]``; the rows may lie apart.

    Raises
    ------
    ValueError : x is not on the CPU.
    TypeError : x is none of float32, bfloat16 and float16.
    """
    check(x)
    x = _with_whole_columns(x)
    rows, columns = x.shape
    native().quantize_rows(
        TYPES[x.dtype], x.data_ptr(), x.stride(0), rows, columns, out, torch.get_num_threads()
    )


def rms_norm(x: Tensor, weight: Tensor, eps: float, out: int) -> None:
    """Of ``x / sqrt(mean(x^2) + eps) * weight``; ``weight`` is float32 ``[columns]``. Raises as ``quantize_rows``."""
    check(x)
    x = _with_whole_columns(x)
    rows, columns = x.shape
    native().rms_norm_quantized(
        TYPES[x.dtype],
        x.data_ptr(),
        x.stride(0),
        rows,
        columns,
        weight.data_ptr(),
        eps,
        out,
        torch.get_num_threads(),
    )


def silu_multiply(gate_up: Tensor, out: int) -> None:
    """Of ``silu(gate) * up`` of ``[rows, 2 * columns]``, the gate first. Raises as ``quantize_rows``."""
    check(gate_up)
    gate_up = gate_up.contiguous()
    rows, both = gate_up.shape
    native().silu_multiply_quantized(
        TYPES[gate_up.dtype], gate_up.data_ptr(), rows, both // 2, out, torch.get_num_threads()
    )


def check(x: Tensor) -> None:
    """Raises as ``quantize_rows``."""
    if not x.is_cpu:
        raise ValueError(
            f"quantized layers run on the CPU only, and this tensor is on {x.device}: move it there"
        )
    if x.dtype not in TYPES:
        raise TypeError(f"the native library quantizes float32, bfloat16 and float16, not {x.dtype}")


def _with_whole_columns(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 else x.contiguous()
