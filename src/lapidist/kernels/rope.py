"""Rotary position embedding (Su et al., 2021, arXiv 2104.09864), halves convention."""

import torch
from torch import Tensor

from lapidist.kernels.cpu import element_wise


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first ``rotary_dim`` channels of each head; the others pass. ``x`` may be overwritten.

    Parameters
    ----------
    x : ``[tokens, heads, head_dim]``.
    cos, sin : ``[tokens, 1, rotary_dim]``; the first half of ``sin`` carries a minus sign, so that the
        rotation ``(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)`` is ``x * cos + (x2, x1) * sin``.
    """
    if x.device.type == "cpu":
        return element_wise.apply_rope(x, cos, sin)
    rotary_dim = cos.shape[-1]
    if rotary_dim == x.shape[-1]:
        return torch.addcmul(x * cos, x.roll(rotary_dim // 2, -1), sin)
    return torch.cat((apply_rope(x[..., :rotary_dim], cos, sin), x[..., rotary_dim:]), dim=-1)
