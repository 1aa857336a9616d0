"""Weights of a linear layer as integers: what a checkpoint stores and the kernels are given.

Three forms (QServe, arXiv 2405.04532, section 4.1), all per output channel with a float16 scale:

- 4 bits, groups: ``W = scale * (code * group_scale - group_zero)``, in which the parenthesis is an 8-bit integer. Group
  parameters are 8-bit integers too, so that undoing them takes integer arithmetic only (progressive quantization).
- 4 bits, no groups: ``W = scale * code - zero``, the zero a float16 number.
- 8 bits: ``W = scale * code``, the code a signed integer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

GROUP_SIZE = 128
"""Columns that share group parameters; the last group of a row may be shorter."""


@dataclass(frozen=True)
class QuantizedWeight:
    """A matrix ``[out_features, in_features]``.

    Attributes
    ----------
    bits : 4 or 8.
    in_features : columns, which the packed codes do not tell where they are odd.
    codes : 4 bits: uint8 ``[out_features, ceil(in_features / 2)]``, an even column in the low four bits and the odd one
        after it in the high four; 8 bits: int8 ``[out_features, in_features]``.
    scales : float16 ``[out_features]``.
    zeros : float16 ``[out_features]``, for 4 bits without groups.
    group_scales : uint8 ``[out_features, groups]``, for 4 bits with groups: 1 to 16.
    group_zeros : int8 ``[out_features, groups]``, likewise.
    """

    bits: int
    in_features: int
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None = None
    group_scales: Tensor | None = None
    group_zeros: Tensor | None = None

    @property
    def out_features(self) -> int:
        return len(self.scales)

    @property
    def is_grouped(self) -> bool:
        return self.group_scales is not None

    @property
    def parts(self) -> dict[str, Tensor]:
        """All tensors by their names; the first dimension of each is the outputs."""
        names = ("codes", "scales", "zeros", "group_scales", "group_zeros")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def byte_count(self) -> int:
        """Of all tensors."""
        return sum(part.nbytes for part in self.parts.values())

    def split(self, sizes: Sequence[int]) -> "list[QuantizedWeight]":
        """Weights of so many outputs each."""
        pieces = zip(*(part.split(list(sizes)) for part in self.parts.values()), strict=True)
        return [self._with(dict(zip(self.parts, piece, strict=True))) for piece in pieces]

    @staticmethod
    def stacked(weights: "Sequence[QuantizedWeight]") -> "QuantizedWeight":
        """One weight of the outputs of several, which share inputs and form."""
        first = weights[0]
        parts = {name: torch.cat([weight.parts[name] for weight in weights]) for name in first.parts}
        return first._with(parts)

    def _with(self, parts: dict[str, Tensor]) -> "QuantizedWeight":
        return QuantizedWeight(self.bits, self.in_features, **parts)

    def unpacked_codes(self) -> Tensor:
        """``[out_features, in_features]``: uint8 from 0 to 15, or int8."""
        return unpack_nibbles(self.codes, self.in_features) if self.bits == 4 else self.codes

    def integers(self) -> Tensor:
        """int16 ``[out_features, in_features]``: what is multiplied by the activations' codes. With groups
        ``code * group_scale - group_zero``, which a sound weight keeps within eight signed bits."""
        codes = self.unpacked_codes().short()
        if self.group_scales is None or self.group_zeros is None:
            return codes
        return codes * self._spread(self.group_scales) - self._spread(self.group_zeros)

    def dequantize(self) -> Tensor:
        """float32 ``[out_features, in_features]``."""
        weight = self.integers().float() * self.scales.float()[:, None]
        return weight if self.zeros is None else weight - self.zeros.float()[:, None]

    def _spread(self, groups: Tensor) -> Tensor:
        """A group's parameter for each of its columns."""
        return groups.short().repeat_interleave(GROUP_SIZE, dim=1)[:, : self.in_features]


def pack_nibbles(codes: Tensor) -> Tensor:
    """uint8 ``[rows, columns]`` from 0 to 15 to ``[rows, ceil(columns / 2)]``, the even column in the low four bits.

    Raises
    ------
    ValueError : a code is over 15.
    """
    if codes.numel() and codes.max() > 15:
        raise ValueError(f"codes must be from 0 to 15, got {codes.max().item()}")
    if codes.shape[1] % 2:
        codes = torch.nn.functional.pad(codes, (0, 1))
    return codes[:, ::2] | codes[:, 1::2] << 4


def unpack_nibbles(packed: Tensor, columns: int) -> Tensor:
    """The inverse of ``pack_nibbles``."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(1)[:, :columns]
