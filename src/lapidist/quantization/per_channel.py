"""Four bits without groups: a scale and a zero for each output channel (QServe, arXiv 2405.04532, section 4.1).

The zero is a float16 number of its own, subtracted from ``scale * code``; kernels apply it once per output.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import QuantizedWeight, pack_nibbles
from lapidist.quantization.grid import SMALLEST_SCALE, Grid, Levels, to_float16

_HIGHEST_CODE = 15


@dataclass(frozen=True)
class PerChannelGrid(Grid):
    """``scale * code - zero``; float16 ``[outputs]``."""

    scales: Tensor
    zeros: Tensor

    def pack(self, codes: Tensor) -> QuantizedWeight:
        return QuantizedWeight(
            bits=4,
            in_features=codes.shape[1],
            codes=pack_nibbles(codes.to(torch.uint8)),
            scales=self.scales,
            zeros=self.zeros,
        )


def per_channel_grid(weight: Tensor, clip_ratios: Tensor | float = 1.0) -> PerChannelGrid:
    """Parameters from the extremes of each row.

    Parameters
    ----------
    weight : ``[outputs, inputs]``.
    clip_ratios : what a row's extremes are multiplied by, one for all or ``[outputs, 1]``.

    Raises
    ------
    ValueError : a scale or a zero does not fit float16.
    """
    lowest, highest = (part * clip_ratios for part in weight.float().aminmax(dim=1, keepdim=True))
    scales = to_float16((highest - lowest) / _HIGHEST_CODE, "scales").clamp(min=SMALLEST_SCALE)
    zeros = to_float16(-lowest, "zeros")
    return PerChannelGrid(
        levels=Levels(
            steps=scales.float(),
            offsets=zeros.float(),
            highest=torch.full_like(lowest, _HIGHEST_CODE),
            lowest=0,
        ),
        group_size=weight.shape[1],
        scales=scales[:, 0],
        zeros=zeros[:, 0],
    )
