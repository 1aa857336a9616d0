"""Progressive group quantization: four-bit codes whose group parameters are 8-bit integers.

QServe (arXiv 2405.04532), section 4.1. A row is scaled to the range of 8-bit integers (level 1) and each group of 128
columns is quantized to four bits with an integer step and an integer zero (level 2). Two refinements that the paper's
text does not have: level 1 is not rounded before level 2, and the zero is subtracted from the product ``code * step``
rather than from the code, so that it need not be a multiple of the step.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import GROUP_SIZE, QuantizedWeight, pack_nibbles
from lapidist.quantization.grid import SMALLEST_SCALE, Grid, Levels, to_float16

PROTECTIVE_RANGE = 119
"""Level 1 goes to plus and minus this: rounding in level 2 then never leaves eight signed bits (section 4.1)."""
_HIGHEST_CODE = 15
_INT8_MAX = 127


@dataclass(frozen=True)
class ProgressiveGrid(Grid):
    """``scale * (code * group_scale - group_zero)``, of which ``QuantizedWeight`` tells shapes and dtypes."""

    scales: Tensor
    group_scales: Tensor
    group_zeros: Tensor

    def pack(self, codes: Tensor) -> QuantizedWeight:
        return QuantizedWeight(
            bits=4,
            in_features=codes.shape[1],
            codes=pack_nibbles(codes.to(torch.uint8)),
            scales=self.scales,
            group_scales=self.group_scales,
            group_zeros=self.group_zeros,
        )


def progressive_grid(weight: Tensor, clip_ratios: Tensor | float = 1.0) -> ProgressiveGrid:
    """Parameters from the extremes of each group.

    Parameters
    ----------
    weight : ``[outputs, inputs]``.
    clip_ratios : what a group's extremes are multiplied by, one for all, ``[outputs, 1]`` or ``[outputs, groups]``.

    Raises
    ------
    ValueError : a scale does not fit float16.
    """
    weight = weight.float()
    scales = to_float16(weight.abs().amax(1) / PROTECTIVE_RANGE, "scales").clamp(min=SMALLEST_SCALE)
    extremes = [group.aminmax(dim=1) for group in weight.split(GROUP_SIZE, dim=1)]
    lowest, highest = (
        (torch.stack(part, 1) / scales.float()[:, None]).clamp(-PROTECTIVE_RANGE, PROTECTIVE_RANGE)
        * clip_ratios
        for part in zip(*extremes, strict=True)
    )
    steps, zeros = group_parameters(lowest, highest)
    return ProgressiveGrid(
        levels=Levels(
            steps=steps * scales.float()[:, None],
            offsets=zeros * scales.float()[:, None],
            highest=highest_codes(steps, zeros),
            lowest=0,
        ),
        group_size=GROUP_SIZE,
        scales=scales,
        group_scales=steps.to(torch.uint8),
        group_zeros=zeros.to(torch.int8),
    )


def group_parameters(lowest: Tensor, highest: Tensor) -> tuple[Tensor, Tensor]:
    """Step and zero, integers in the dtype given, of groups whose extremes on level 1 these are."""
    return ((highest - lowest) / _HIGHEST_CODE).round().clamp(min=1), (-lowest).round()


def highest_codes(steps: Tensor, zeros: Tensor) -> Tensor:
    """The largest code of a group for which ``code * step - zero`` is still an 8-bit integer.

    Rounding to nearest never exceeds it, but GPTQ moves weights out of the range that the parameters were made for.
    (Code zero gives ``-zero``, at least -119.)
    """
    return ((_INT8_MAX + zeros) / steps).floor().clamp(max=_HIGHEST_CODE)
