"""Linear layers whose weight is laid out once for the matrix-multiplication library that will read it."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

_HAS_ONEDNN = torch.backends.mkldnn.is_available()


class Linear:
    """``y = x W^T + b``.

    On a CPU the weight is repacked into oneDNN's blocked layout, in which it streams from memory about twice
    as fast when few rows are multiplied (decoding), and no slower when many are (prefill). A packed weight
    cannot be read back. Elsewhere, and for a dtype that oneDNN lacks on this processor, it stays as it is.

    Parameters
    ----------
    weight : ``[out_features, in_features]``.
    bias : ``[out_features]`` or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.out_features, self.in_features = weight.shape
        self.is_packed = can_pack(weight)
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight) if self.is_packed else weight
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """``[rows, in_features]`` to ``[rows, out_features]``."""
        if self.is_packed and len(x):
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        if self.is_packed:
            return x.new_empty(0, self.out_features)
        return F.linear(x, self.weight, self.bias)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN multiplies by a prepacked weight of this dtype on this processor."""
    if weight.device.type != "cpu" or not _HAS_ONEDNN:
        return False
    if weight.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    if weight.dtype == torch.float16:
        return torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return weight.dtype == torch.float32


def _packed_flops(x_shape: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    rows, columns = out_shape
    return 2 * rows * columns * x_shape[-1]


if _HAS_ONEDNN:
    # So that ``torch.utils.flop_counter`` counts packed linear layers.
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_packed_flops)
