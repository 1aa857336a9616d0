"""Root-mean-square normalization (Zhang and Sennrich, 2019, arXiv 1910.07467)."""

import torch.nn.functional as F
from torch import Tensor


class RMSNorm:
    """``x / sqrt(mean(x^2) + eps) * (weight + offset)`` over the last dimension, computed in float32.

    Parameters
    ----------
    weight : ``[columns]``, or ``[heads, columns]`` for a weight per head.
    offset : added to the weight: 1 for Gemma, whose weights are stored around zero.
    """

    def __init__(self, weight: Tensor, eps: float, offset: float = 0.0) -> None:
        # With an offset the sum would lose bits in 16-bit formats.
        self.weight = weight.float() + offset if offset else weight
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        """Normalize ``[..., columns]``."""
        columns = x.shape[-1:]
        if self.weight.dim() == 1 and self.weight.dtype == x.dtype:
            return F.rms_norm(x, columns, self.weight, self.eps)
        normalized = F.rms_norm(x.to(self.weight.dtype), columns, None, self.eps)
        return normalized.mul_(self.weight).to(x.dtype)
