"""The values that each weight of a matrix may take, fixed beforehand; rounding and GPTQ choose among them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import QuantizedWeight

SMALLEST_SCALE = 2.0**-24
"""The least float16 above zero: what a row of zeros is divided by."""


@dataclass(frozen=True)
class Levels:
    """``step * code - offset`` for integer codes from ``lowest`` to ``highest``; shapes are any that broadcast."""

    steps: Tensor
    offsets: Tensor
    highest: Tensor
    lowest: int

    def nearest_codes(self, values: Tensor) -> Tensor:
        """Integers, in the dtype of ``values``."""
        codes = ((values + self.offsets) / self.steps).round_()
        return codes.clamp_(min=self.lowest).minimum(self.highest)

    def values(self, codes: Tensor) -> Tensor:
        return self.steps * codes - self.offsets

    def map(self, change: Callable[[Tensor], Tensor]) -> "Levels":
        """Each tensor changed."""
        return Levels(change(self.steps), change(self.offsets), change(self.highest), self.lowest)


@dataclass(frozen=True)
class Grid(ABC):
    """Levels of a matrix ``[outputs, inputs]``.

    Attributes
    ----------
    levels : float32 ``[outputs, groups]``.
    group_size : columns that share levels.
    """

    levels: Levels
    group_size: int

    def at(self, columns: Tensor) -> Levels:
        """``[outputs, len(columns)]``: the levels of these columns, given by their indices."""
        groups = columns // self.group_size
        return self.levels.map(lambda part: part[:, groups])

    def nearest(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of a whole matrix, rounded to nearest, and their values, both float32 ``[outputs, inputs]``."""
        levels = self.at(torch.arange(weight.shape[1], device=weight.device))
        codes = levels.nearest_codes(weight.float())
        return codes, levels.values(codes)

    def round_to_nearest(self, weight: Tensor) -> QuantizedWeight:
        return self.pack(self.nearest(weight)[0])

    @abstractmethod
    def pack(self, codes: Tensor) -> QuantizedWeight:
        """The form that is stored, of codes ``[outputs, inputs]`` of any dtype."""


def to_float16(values: Tensor, what: str) -> Tensor:
    """Raises ValueError where a value does not fit."""
    rounded = values.half()
    if not rounded.isfinite().all():
        raise ValueError(
            f"{what} of a weight matrix do not fit float16: weights are NaN, infinite or over a million, "
            "look for damage in the checkpoint"
        )
    return rounded
