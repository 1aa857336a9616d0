"""Linear layers: the weight is laid out once for the kernels that will read it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from lapidist.kernels.cpu.linear import IMPLEMENTATIONS, multiply, pack_weight
from lapidist.kernels.dispatch import DispatchTable
from lapidist.kernels.operators import LIBRARY, is_watched


class Linear:
    """``y = x W^T + b``.

    On a CPU the weight is packed for the native library, which multiplies by the function that ``lapidist tune``
    found fastest for the number of rows. A packed weight cannot be read back. Elsewhere it stays as it is.

    Parameters
    ----------
    weight : ``[out_features, in_features]``.
    bias : ``[out_features]`` or None.
    table : of this machine's measurements; None is the built-in one.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, table: DispatchTable | None = None
    ) -> None:
        self.out_features, self.in_features = weight.shape
        self.is_packed = weight.device.type == "cpu"
        self.bias = bias
        if self.is_packed:
            self.weight = pack_weight(weight)
            self._pick = (table or DispatchTable()).bind(
                IMPLEMENTATIONS, self.out_features, self.in_features, weight.dtype
            )
        else:
            self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        """``[rows, in_features]`` to ``[rows, out_features]``."""
        if not self.is_packed:
            return F.linear(x, self.weight, self.bias)
        multiply = torch.ops.lapidist.packed_linear if is_watched() else _packed_linear
        return multiply(x, self.weight, self.bias, self.out_features, self._pick(len(x)).name)


LIBRARY.define("packed_linear(Tensor x, Tensor packed, Tensor? bias, int outputs, str name) -> Tensor")


def _packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None, outputs: int, name: str) -> Tensor:
    out = x.new_empty(len(x), outputs)
    if len(x):
        multiply(name, x, packed, out, bias)
    return out


LIBRARY.impl("packed_linear", _packed_linear, "CPU")


@register_flop_formula(torch.ops.lapidist.packed_linear)
def _packed_flops(x_shape: Any, _packed: Any, _bias: Any, outputs: int, *_: Any, **__: Any) -> int:
    rows, columns = x_shape
    return 2 * rows * columns * outputs
