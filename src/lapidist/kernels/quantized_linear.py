"""Linear layers over quantized weights: 4 or 8 bits by 8-bit activations, in integers (QServe, arXiv 2405.04532)."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lapidist.kernels.cpu.library import TYPES
from lapidist.kernels.cpu.quantized_linear import multiply, pack_weight, weight_form
from lapidist.kernels.operators import LIBRARY
from lapidist.kernels.quantized_rows import QuantizedRows, quantize_rows
from lapidist.kernels.quantized_weight import QuantizedWeight


class QuantizedLinear:
    """``y = x W^T + b`` of activations that are quantized row by row.

    The weight is packed once and cannot be read back. A row's result does not depend on the batch it is in.

    Parameters
    ----------
    bias : ``[out_features]`` or None.
    dtype : of y: float32, bfloat16 or float16.

    Raises
    ------
    ValueError : the weight is not on the CPU, or has more columns than 32-bit sums allow.
    TypeError : of another dtype.
    """

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None, dtype: torch.dtype) -> None:
        if dtype not in TYPES:
            raise TypeError(f"a quantized layer gives float32, bfloat16 or float16, not {dtype}")
        self.out_features, self.in_features = weight.out_features, weight.in_features
        self.dtype = dtype
        self.form = weight_form(weight)
        self.packed = pack_weight(weight, bias)

    def __call__(self, x: Tensor | QuantizedRows) -> Tensor:
        """``[rows, in_features]`` to ``[rows, out_features]``.

        Raises
        ------
        ValueError : x has other columns than the weight, or is not on the CPU.
        """
        columns = x.columns if isinstance(x, QuantizedRows) else x.shape[1]
        if columns != self.in_features:
            raise ValueError(
                f"x has {columns} columns and does not fit the weight, which has {self.in_features}"
            )
        rows = x if isinstance(x, QuantizedRows) else quantize_rows(x)
        return torch.ops.lapidist.quantized_linear(
            rows.codes, rows.scales, rows.sums, self.packed, self.form, columns, self.out_features, self.dtype
        )


LIBRARY.define(
    "quantized_linear(Tensor codes, Tensor scales, Tensor sums, Tensor packed, int form, int columns, int outputs, "
    "ScalarType dtype) -> Tensor"
)


def _quantized_linear(
    codes: Tensor,
    scales: Tensor,
    sums: Tensor,
    packed: Tensor,
    form: int,
    columns: int,
    outputs: int,
    dtype: torch.dtype,
) -> Tensor:
    out = torch.empty(len(codes), outputs, dtype=dtype)
    multiply(form, codes, scales, sums, packed, columns, out)
    return out


LIBRARY.impl("quantized_linear", _quantized_linear, "CPU")


@register_flop_formula(torch.ops.lapidist.quantized_linear)
def _quantized_flops(
    codes_shape: Any,
    _scales: Any,
    _sums: Any,
    _packed: Any,
    _form: int,
    columns: int,
    outputs: int,
    *_: Any,
    **__: Any,
) -> int:
    return 2 * codes_shape[0] * columns * outputs
