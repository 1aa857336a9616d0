"""Activations as layers see them: channels of different sizes, correlated with one another."""

import torch
from torch import Tensor


def correlated_inputs(tokens: int, channels: int) -> Tensor:
    """float32 ``[tokens, channels]``."""
    mixing = torch.randn(channels, channels) / channels**0.5 + torch.eye(channels)
    return torch.randn(tokens, channels) @ mixing * torch.randn(channels).exp()
