"""Some outputs of a linear layer, without the work for the others."""

from collections.abc import Callable
from copy import copy

from torch import Tensor

from lapidist.kernels.linear import Linear
from lapidist.kernels.quantized_linear import QuantizedLinear
from lapidist.kernels.weight_only_linear import WeightOnlyLinear

# Outputs of a panel, the least that a packed weight can be parted into (``native/kernels.h``).
_PANEL = 64


def output_range(projection: Callable[..., Tensor], start: int, stop: int) -> Callable[..., Tensor]:
    """A layer that gives the outputs ``start`` to ``stop`` of ``projection`` to the last bit, on a CPU.

    It shares the weight's memory. A layer of another kind is computed whole and cut.
    """
    if isinstance(projection, Linear | QuantizedLinear | WeightOnlyLinear):
        is_packed = not isinstance(projection, Linear) or projection.is_packed
        first = start // _PANEL * _PANEL if is_packed else start
        panels = slice(first // _PANEL, -(-stop // _PANEL)) if is_packed else slice(start, stop)
        part: Linear | QuantizedLinear | WeightOnlyLinear
        if isinstance(projection, QuantizedLinear):
            part = projection.panels(panels, stop - first)
        else:
            part = copy(projection)
            part.out_features = stop - first
            if isinstance(part, Linear):
                part.weight = part.weight[panels]
                part.bias = None if part.bias is None else part.bias[first:stop]
            else:
                part.packed = part.packed[panels]
        skipped = start - first
        return (lambda x: part(x)[:, skipped:]) if skipped else part
    return lambda x: projection(x)[:, start:stop]
