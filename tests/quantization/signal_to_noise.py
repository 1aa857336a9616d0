"""How exact a quantizer is, and the weights that it is tried on."""

import torch
from torch import Tensor


def decibels(exact: Tensor, rounded: Tensor) -> float:
    """Signal to quantization noise."""
    noise = (exact.double() - rounded.double()).square().sum()
    return float(10 * torch.log10(exact.double().square().sum() / noise))


def gaussian() -> Tensor:
    return torch.randn(512, 4096)


def heavy_tailed() -> Tensor:
    """Student's t with five degrees of freedom."""
    return torch.distributions.StudentT(torch.tensor(5.0)).sample((512, 4096))
