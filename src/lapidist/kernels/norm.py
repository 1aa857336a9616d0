"""Root-mean-square normalization (Zhang and Sennrich, 2019, arXiv 1910.07467)."""

import torch.nn.functional as F
from torch import Tensor

from lapidist.kernels.cpu import element_wise
from lapidist.kernels.cpu import quantized_rows as cpu_quantized
from lapidist.kernels.quantized_rows import QuantizedRows


class RMSNorm:
    """``x / sqrt(mean(x^2) + eps) * (weight + offset)`` over the last dimension, computed in float32.

    Parameters
    ----------
    weight : ``[columns]``, or ``[heads, columns]`` for a weight per head.
    offset : added to the weight: 1 for Gemma, whose weights are stored around zero.
    """

    def __init__(self, weight: Tensor, eps: float, offset: float = 0.0) -> None:
        # In float32, for with an offset the sum would lose bits in 16-bit formats.
        self.weight = weight.float() + offset
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """Normalize ``[tokens, columns]`` or ``[tokens, heads, columns]``."""
        if x.device.type == "cpu":
            return element_wise.rms_norm(x, self.weight, self.eps)
        return F.rms_norm(x.float(), x.shape[-1:], None, self.eps).mul_(self.weight).to(x.dtype)

    def quantized(self, x: Tensor) -> QuantizedRows:
        """What ``quantize_rows`` makes of the normalized rows ``[tokens, columns]`` in float32: they are not rounded to
        the type of x in between.

        Raises
        ------
        ValueError, TypeError : as of ``quantize_rows``.
        """
        rows, columns = x.shape
        out = QuantizedRows(rows, columns)
        cpu_quantized.rms_norm(x, self.weight, self.eps, out.address)
        return out
