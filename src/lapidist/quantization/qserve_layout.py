"""Weights as QServe and OmniServe store them (arXiv 2405.04532, section 5.2.1), and the same weights in our form.

They lie in the order in which the lanes of a GPU's matrix instruction take them. Rows and columns go in blocks of 32,
those of one row of blocks after another. In a block, lane ``4 a + b`` (a below 8, b below 4) has 16 bytes, and byte
``8 h + 4 m + c`` of them (h and m below 2, c below 4) holds column ``16 h + 4 b + c`` of two rows: ``8 m + a`` in the
low four bits and ``16 + 8 m + a`` in the high four.

A group is 128 columns. Its scale and zero are in ``[columns / 128, rows]``, each 32 rows in the order 0, 8, 16,
24, 1, 9, 17, 25, ... The zero is stored negated and modulo 256: an integer is ``code * scale + zero`` as a signed byte.
A channel's zero is a float16 number that is subtracted, as ours is.
"""

import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import GROUP_SIZE, QuantizedWeight, pack_nibbles

BLOCK = 32
"""Rows and columns are multiples of it."""

_LARGEST_SCALE = 255 // 15  # code times scale is a byte
_LARGEST_ZERO = 127


def from_channels(qweight: Tensor, s1_scales: Tensor, s1_szeros: Tensor) -> QuantizedWeight:
    """A weight with one scale and zero for each output channel.

    Parameters
    ----------
    qweight : int8 ``[rows, columns / 2]``.
    s1_scales, s1_szeros : float16 ``[rows]``.
    """
    codes = unpack_codes(qweight)
    return QuantizedWeight(4, codes.shape[1], pack_nibbles(codes), s1_scales, s1_szeros)


def from_groups(qweight: Tensor, s1_scales: Tensor, s2_scales: Tensor, s2_zeros: Tensor) -> QuantizedWeight:
    """A weight in groups of 128 columns. Its integers are QServe's, bit for bit.

    Parameters
    ----------
    qweight : int8 ``[rows, columns / 2]``.
    s1_scales : float16 ``[rows]``.
    s2_scales, s2_zeros : int8 ``[columns / 128, rows]``.

    Raises
    ------
    ValueError : our form cannot hold a group: its scale is not from 1 to 17, an integer is -128, or some integers
        overflow and others do not.
    """
    codes = unpack_codes(qweight)
    rows, columns = codes.shape
    grouped = codes.view(rows, -1, GROUP_SIZE).short()
    scales, stored = unpack_groups(s2_scales).short(), unpack_groups(s2_zeros).short()
    _refuse("has a scale that is not from 1 to 17", (scales < 1) | (scales > _LARGEST_SCALE))
    least, most = grouped.amin(-1), grouped.amax(-1)
    smallest = (least * scales + stored).to(torch.int8)
    zeros = least * scales - smallest  # 0 to 255 in QServe's quantizer, of which the byte keeps the remainder
    _refuse("has an integer of -128", smallest == -128)
    _refuse("has integers that overflow", most * scales - zeros > 127)
    # Ours is a signed byte. Where it cannot hold the zero, the smallest codes are unused: all move down.
    shift = ((zeros - _LARGEST_ZERO + scales - 1) // scales).clamp(min=0)
    codes = (grouped - shift[..., None]).to(torch.uint8).view(rows, columns)
    return QuantizedWeight(
        4,
        columns,
        pack_nibbles(codes),
        s1_scales,
        group_scales=scales.to(torch.uint8),
        group_zeros=(zeros - shift * scales).to(torch.int8),
    )


def unpack_codes(qweight: Tensor) -> Tensor:
    """int8 ``[rows, columns / 2]`` to uint8 ``[rows, columns]`` from 0 to 15."""
    rows, columns = qweight.shape[0], 2 * qweight.shape[1]
    # row block, column block, a, b, h, m, c; and then which four bits
    packed = qweight.view(torch.uint8).reshape(rows // BLOCK, columns // BLOCK, 8, 4, 2, 2, 4)
    codes = torch.stack((packed & 15, packed >> 4), dim=-1)
    return codes.permute(0, 7, 5, 2, 1, 4, 3, 6).reshape(rows, columns)


def unpack_groups(parameters: Tensor) -> Tensor:
    """``[groups, rows]`` in the order of lanes to ``[rows, groups]``."""
    groups, rows = parameters.shape
    return (
        parameters.reshape(groups, rows // BLOCK, 8, 4).transpose(2, 3).reshape(groups, rows).T.contiguous()
    )


def _refuse(problem: str, where: Tensor) -> None:
    """Raise for the first group ``[rows, groups]`` that has the problem."""
    if where.any():
        row, group = where.nonzero()[0].tolist()
        raise ValueError(f"group {group} of row {row} {problem}, which cannot be represented")
