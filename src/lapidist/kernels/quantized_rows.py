"""Activations as integers: a scale for each row, found when the row is (QServe, arXiv 2405.04532, section 4.2)."""

from functools import cache

import torch
from torch import Tensor

from lapidist.kernels.cpu import quantized_rows as cpu
from lapidist.kernels.quantized_weight import GROUP_SIZE


class QuantizedRows:
    """A matrix ``[rows, columns]``, of which a row is about ``scale * code``: at most half a scale off. A new one
    is yet to be written.

    Attributes
    ----------
    memory : uint8, of the codes, the sums and the scales, one after the other: one tensor is made sooner than three.
    address : of it.
    count : of rows.
    columns : of the matrix.
    """

    __slots__ = ("address", "columns", "count", "memory")

    def __init__(self, rows: int, columns: int) -> None:
        self.memory = torch.empty(rows * row_bytes(columns), dtype=torch.uint8)
        self.address = self.memory.data_ptr()
        self.count, self.columns = rows, columns

    def __len__(self) -> int:
        return self.count

    @property
    def codes(self) -> Tensor:
        """int8 ``[rows, padded columns]``, from -127 to 127; zeros beyond the columns."""
        return self._part(0, cpu.row_codes_bytes(self.columns), torch.int8)

    @property
    def sums(self) -> Tensor:
        """int32 ``[rows, groups]`` of the codes of each ``GROUP_SIZE`` columns."""
        return self._part(cpu.row_codes_bytes(self.columns), 4 * group_count(self.columns), torch.int32)

    @property
    def scales(self) -> Tensor:
        """float32 ``[rows]``, above zero; NaN where a row is not finite."""
        return self._part(row_bytes(self.columns) - 4, 4, torch.float32).flatten()

    def dequantize(self) -> Tensor:
        """float32 ``[rows, columns]``."""
        return self.codes[:, : self.columns].float() * self.scales[:, None]

    def _part(self, offset: int, bytes: int, dtype: torch.dtype) -> Tensor:
        """What takes so many bytes of a row, after what takes ``offset`` bytes of each."""
        part = self.memory[self.count * offset : self.count * (offset + bytes)]
        return part.view(dtype).view(self.count, bytes // dtype.itemsize)


@cache
def row_bytes(columns: int) -> int:
    """Of a row's codes, sums and scale (``native/quantized_rows.h``)."""
    return cpu.row_codes_bytes(columns) + 4 * group_count(columns) + 4


def group_count(columns: int) -> int:
    return -(-columns // GROUP_SIZE)


def quantize_rows(x: Tensor) -> QuantizedRows:
    """Symmetric, the largest magnitude of a row being 127: ``code = round(x / scale)``, halves to even.

    Parameters
    ----------
    x : ``[rows, columns]`` in float32, bfloat16 or float16.

    Raises
    ------
    ValueError : x is not on the CPU.
    TypeError : x is of another type.
    """
    rows, columns = x.shape
    out = QuantizedRows(rows, columns)
    cpu.quantize_rows(x, out.address)
    return out
