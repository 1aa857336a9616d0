"""Eight bits: a scale for each output channel, symmetric."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import QuantizedWeight
from lapidist.quantization.grid import SMALLEST_SCALE, Grid, Levels, to_float16

_HIGHEST_CODE = 127


@dataclass(frozen=True)
class EightBitGrid(Grid):
    """``scale * code``; float16 ``[outputs]``."""

    scales: Tensor

    def pack(self, codes: Tensor) -> QuantizedWeight:
        return QuantizedWeight(
            bits=8, in_features=codes.shape[1], codes=codes.to(torch.int8), scales=self.scales
        )


def eight_bit_grid(weight: Tensor, clip_ratios: Tensor | float = 1.0) -> EightBitGrid:
    """Parameters from the largest magnitude of each row.

    Parameters
    ----------
    weight : ``[outputs, inputs]``.
    clip_ratios : what it is multiplied by, one for all or ``[outputs, 1]``.

    Raises
    ------
    ValueError : a scale does not fit float16.
    """
    largest = weight.float().abs().amax(1, keepdim=True) * clip_ratios
    scales = to_float16(largest / _HIGHEST_CODE, "scales").clamp(min=SMALLEST_SCALE)
    return EightBitGrid(
        levels=Levels(
            steps=scales.float(),
            offsets=torch.zeros_like(largest),
            highest=torch.full_like(largest, _HIGHEST_CODE),
            lowest=-_HIGHEST_CODE,
        ),
        group_size=weight.shape[1],
        scales=scales[:, 0],
    )
