"""The gated activation of the feed-forward block."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from lapidist.kernels.cpu import element_wise

# By their names in Hugging Face configurations; the argument may be overwritten.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": lambda x: F.silu(x, inplace=True),
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def gated_activation(gate_up: Tensor, activation: str) -> Tensor:
    """``activation(gate) * up``, ``[tokens, intermediate]``.

    Parameters
    ----------
    gate_up : ``[tokens, 2 * intermediate]``, the gate first; may be overwritten.
    activation : a key of ``ACTIVATIONS``.
    """
    if activation == "silu" and gate_up.device.type == "cpu":
        return element_wise.silu_multiply(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return ACTIVATIONS[activation](gate).mul_(up)
