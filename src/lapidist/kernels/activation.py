"""The gated activation of the feed-forward block."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

# The names of the functions in Hugging Face configurations.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def gated_activation(gate_up: Tensor, activation: str) -> Tensor:
    """``activation(gate) * up`` of ``[tokens, 2 * intermediate]``, gate first; gives ``[tokens, intermediate]``."""
    gate, up = gate_up.chunk(2, dim=-1)
    return ACTIVATIONS[activation](gate).mul_(up)
