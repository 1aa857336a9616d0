"""Linear layers over quantized weights: 4 or 8 bits by 8-bit activations, in integers (QServe, arXiv 2405.04532)."""

from copy import copy
from typing import Any

import torch
from torch import Tensor, empty, get_num_threads
from torch.utils.flop_counter import register_flop_formula

from lapidist.kernels.cpu.library import TYPES
from lapidist.kernels.cpu.quantized_linear import multiply_by, pack_weight, weight_form
from lapidist.kernels.operators import LIBRARY, is_watched
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

    __slots__ = ("_multiply", "dtype", "form", "in_features", "out_features", "packed")

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None, dtype: torch.dtype) -> None:
        if dtype not in TYPES:
            raise TypeError(f"a quantized layer gives float32, bfloat16 or float16, not {dtype}")
        self.out_features, self.in_features = weight.out_features, weight.in_features
        self.dtype = dtype
        self.form = weight_form(weight)
        self._set(pack_weight(weight, bias))

    def panels(self, panels: slice, outputs: int) -> "QuantizedLinear":
        """A layer of some of the packed weight's panels, so many outputs, which shares their memory."""
        part = copy(self)
        part.out_features = outputs
        part._set(self.packed[panels])
        return part

    def _set(self, packed: Tensor) -> None:
        self.packed = packed
        self._multiply = multiply_by(self.form, packed, self.in_features, self.out_features, self.dtype)

    def __call__(self, x: Tensor | QuantizedRows) -> Tensor:
        """``[rows, in_features]`` to ``[rows, out_features]``.

        Raises
        ------
        ValueError : x has other columns than the weight, or is not on the CPU.
        """
        rows = x if isinstance(x, QuantizedRows) else quantize_rows(x)
        if rows.columns != self.in_features:
            raise ValueError(
                f"x has {rows.columns} columns and does not fit the weight, which has {self.in_features}"
            )
        count = rows.count
        if is_watched():
            return torch.ops.lapidist.quantized_linear(
                rows.memory, self.packed, self.form, count, self.in_features, self.out_features, self.dtype
            )
        out = empty(count, self.out_features, dtype=self.dtype)
        self._multiply(rows.address, count, out.data_ptr(), get_num_threads())
        return out


LIBRARY.define(
    "quantized_linear(Tensor rows, Tensor packed, int form, int count, int columns, int outputs, ScalarType dtype) "
    "-> Tensor"
)


def _quantized_linear(
    rows: Tensor, packed: Tensor, form: int, count: int, columns: int, outputs: int, dtype: torch.dtype
) -> Tensor:
    out = empty(count, outputs, dtype=dtype)
    multiply = multiply_by(form, packed, columns, outputs, dtype)
    multiply(rows.data_ptr(), count, out.data_ptr(), get_num_threads())
    return out


LIBRARY.impl("quantized_linear", _quantized_linear, "CPU")


@register_flop_formula(torch.ops.lapidist.quantized_linear)
def _quantized_flops(
    _rows: Any, _packed: Any, _form: int, count: int, columns: int, outputs: int, *_: Any, **__: Any
) -> int:
    return 2 * count * columns * outputs
