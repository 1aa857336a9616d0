"""Activations as integers: a scale for each row, found when the row is (QServe, arXiv 2405.04532, section 4.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.kernels.cpu import quantized_rows as cpu
from lapidist.kernels.quantized_weight import GROUP_SIZE

_LINE = 64


@dataclass(frozen=True)
class QuantizedRows:
    """A matrix ``[rows, columns]``, of which a row is about ``scale * code``: at most half a scale off.

    Attributes
    ----------
    codes : int8 ``[rows, padded columns]``, from -127 to 127; zeros beyond the columns.
    scales : float32 ``[rows]``, above zero; NaN where a row is not finite.
    sums : int32 ``[rows, groups]`` of the codes of each ``GROUP_SIZE`` columns.
    columns : of the matrix.
    """

    codes: Tensor
    scales: Tensor
    sums: Tensor
    columns: int

    def __len__(self) -> int:
        return len(self.codes)

    @staticmethod
    def empty(rows: int, columns: int) -> "QuantizedRows":
        """To be written. A row is an odd number of cache lines: rows a power of two apart would evict one another from
        the first-level cache."""
        lines = -(-columns // _LINE) | 1
        return QuantizedRows(
            torch.empty(rows, lines * _LINE, dtype=torch.int8),
            torch.empty(rows, dtype=torch.float32),
            torch.empty(rows, -(-columns // GROUP_SIZE), dtype=torch.int32),
            columns,
        )

    def dequantize(self) -> Tensor:
        """float32 ``[rows, columns]``."""
        return self.codes[:, : self.columns].float() * self.scales[:, None]


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
    out = QuantizedRows.empty(*x.shape)
    cpu.quantize_rows(x, out.codes, out.scales, out.sums)
    return out
