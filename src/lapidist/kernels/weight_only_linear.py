"""Linear layers over quantized weights and activations that stay floating-point numbers."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lapidist.kernels.cpu.library import TYPES
from lapidist.kernels.cpu.quantized_linear import multiply_floats, pack_weight, weight_form
from lapidist.kernels.operators import LIBRARY
from lapidist.kernels.quantized_weight import QuantizedWeight


class WeightOnlyLinear:
    """``y = x W^T + b``. The weight keeps its 4 or 8 bits in memory; its integers are expanded in the cache, exactly.

    A row's result does not depend on the batch it is in.

    Parameters
    ----------
    bias : ``[out_features]`` or None.
    dtype : of x and y: float32, bfloat16 or float16.

    Raises
    ------
    ValueError : the weight is not on the CPU, or has more columns than ``QuantizedLinear`` takes.
    TypeError : of another dtype.
    """

    def __init__(self, weight: QuantizedWeight, bias: Tensor | None, dtype: torch.dtype) -> None:
        if dtype not in TYPES:
            raise TypeError(f"a quantized layer gives float32, bfloat16 or float16, not {dtype}")
        self.out_features, self.in_features = weight.out_features, weight.in_features
        self.dtype = dtype
        self.form = weight_form(weight)
        self.packed = pack_weight(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        """``[rows, in_features]`` to ``[rows, out_features]``.

        Raises
        ------
        ValueError : x has other columns than the weight, or is not on the CPU.
        TypeError : x is of another dtype than the layer.
        """
        if x.device.type != "cpu":
            raise ValueError(
                f"quantized layers run on the CPU only, and this tensor is on {x.device}: move it there"
            )
        if x.dtype != self.dtype:
            raise TypeError(f"x is {x.dtype} and the layer is {self.dtype}: make them one dtype")
        if x.shape[1] != self.in_features:
            raise ValueError(
                f"x has {x.shape[1]} columns and does not fit the weight, which has {self.in_features}"
            )
        return torch.ops.lapidist.weight_only_linear(x, self.packed, self.form, self.out_features)


LIBRARY.define("weight_only_linear(Tensor x, Tensor packed, int form, int outputs) -> Tensor")


def _weight_only_linear(x: Tensor, packed: Tensor, form: int, outputs: int) -> Tensor:
    out = x.new_empty(len(x), outputs)
    multiply_floats(form, x, packed, out)
    return out


LIBRARY.impl("weight_only_linear", _weight_only_linear, "CPU")


@register_flop_formula(torch.ops.lapidist.weight_only_linear)
def _weight_only_flops(x_shape: Any, _packed: Any, _form: int, outputs: int, *_: Any, **__: Any) -> int:
    rows, columns = x_shape
    return 2 * rows * columns * outputs
