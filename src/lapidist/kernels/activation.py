"""The gated activation of the feed-forward block."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from lapidist.kernels.cpu import element_wise
from lapidist.kernels.cpu import quantized_rows as cpu_quantized
from lapidist.kernels.quantized_rows import QuantizedRows, quantize_rows

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


def quantized_gated_activation(gate_up: Tensor, activation: str) -> QuantizedRows:
    """``activation(gate) * up`` computed in float32 and quantized row by row, whatever the type of ``gate_up``.

    Parameters
    ----------
    gate_up : ``[tokens, 2 * intermediate]``, the gate first.
    activation : a key of ``ACTIVATIONS``; ``silu`` takes one pass over memory.

    Raises
    ------
    ValueError, TypeError : as of ``quantize_rows``.
    """
    if activation == "silu":
        rows, both = gate_up.shape
        out = QuantizedRows(rows, both // 2)
        cpu_quantized.silu_multiply(gate_up, out.address)
        return out
    cpu_quantized.check(gate_up)
    gate, up = gate_up.float().chunk(2, dim=-1)
    return quantize_rows(ACTIVATIONS[activation](gate).mul(up))
