"""How numbers are stored: a number type plus the scales that quantized tensors carry along."""

from dataclasses import dataclass
from typing import Literal

NumberType = Literal["fp32", "bf16", "fp16", "fp8", "fp4", "int8", "int4"]

BITS: dict[NumberType, int] = {"fp32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "fp4": 4, "int8": 8, "int4": 4}


@dataclass(frozen=True)
class TensorFormat:
    """Storage of a matrix ``[rows, columns]``; a row is an output channel, a token, or a head of a token.

    Parameters
    ----------
    number : type of one element.
    group_size : columns that share one set of group parameters; None has no groups. A last, shorter group
        costs as much as a full one.
    group_overhead_bits : scale and zero point of one group.
    row_overhead_bits : scale and zero point of one row.
    """

    number: NumberType
    group_size: int | None = None
    group_overhead_bits: int = 0
    row_overhead_bits: int = 0

    def __post_init__(self) -> None:
        if self.number not in BITS:
            raise ValueError(f"unknown number type {self.number!r}; known are {', '.join(BITS)}")
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(f"group_size must be at least 1, got {self.group_size}")
        if self.group_size is None and self.group_overhead_bits:
            raise ValueError("group_overhead_bits needs a group_size")

    @property
    def bits(self) -> int:
        """Bits of one element without its share of the scales."""
        return BITS[self.number]

    def byte_count(self, rows: int, columns: int) -> int:
        """Bytes of ``[rows, columns]`` with scales and zero points; each row starts on a byte.

        >>> TensorFormat("int4", 128, group_overhead_bits=16, row_overhead_bits=16).byte_count(1, 4096)
        2114
        """
        groups = -(-columns // self.group_size) if self.group_size else 0
        row_bits = columns * self.bits + groups * self.group_overhead_bits + self.row_overhead_bits
        return rows * -(-row_bits // 8)
