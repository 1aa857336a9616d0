"""Which implementation of a linear layer runs for how many rows: measured tables and their look-up.

FlashDecoding++ (arXiv 2311.01282, section 5) stores two inflection points for every weight shape: M1, from which
flat GEMM beats GEMV, and M2, from which a GEMM for many rows beats flat GEMM. Here a shape's choice is any piecewise
constant function of the number of rows.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar

import torch
from torch import Tensor

Choice = TypeVar("Choice")

Inflections = tuple[tuple[int, str], ...]
"""``((1, name), (first row count, name), ...)``: the name holds from there up to the next."""

DEFAULT_INFLECTIONS: Inflections = ((1, "gemv"), (7, "flat_gemm"), (97, "gemm"))
"""For a machine without measurements: memory is the limit at first, arithmetic in the end."""


@dataclass(frozen=True)
class Implementation:
    """One way to compute ``out = x W^T``.

    Attributes
    ----------
    run : takes ``x`` ``[rows, k]``, ``W`` (``[n, k]``, in the layout that all implementations of a device share) and
        ``out`` ``[rows, n]``, contiguous and of one dtype.
    max_rows : the most rows that it takes; None for any number.
    dtypes : what it computes in; None for everything.
    min_rows : with fewer it runs the very loops of another one: it takes them, but there is nothing to choose between.
    """

    name: str
    run: Callable[[Tensor, Tensor, Tensor], None]
    max_rows: int | None = None
    dtypes: frozenset[torch.dtype] | None = None
    min_rows: int = 1

    def takes(self, dtype: torch.dtype, rows: int) -> bool:
        return (self.dtypes is None or dtype in self.dtypes) and (
            self.max_rows is None or rows <= self.max_rows
        )

    def competes(self, dtype: torch.dtype, rows: int) -> bool:
        """Whether it takes them and does not do what another one does."""
        return rows >= self.min_rows and self.takes(dtype, rows)


@dataclass(frozen=True)
class WeightShape:
    """A weight ``[n, k]``: ``n`` output and ``k`` input channels."""

    n: int
    k: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        if self.n < 1 or self.k < 1:
            raise ValueError(f"a weight's shape must be positive, got [{self.n}, {self.k}]")

    @property
    def weight_bytes(self) -> int:
        return self.n * self.k * self.dtype.itemsize

    def bytes_moved(self, rows: int) -> int:
        """The weight, the input and the output, each once."""
        return self.weight_bytes + rows * (self.n + self.k) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"[{self.n}, {self.k}] {str(self.dtype).removeprefix('torch.')}"


class Picker(Generic[Choice]):
    """What one weight uses for a number of rows; a call takes about 0.1 µs."""

    __slots__ = ("_choices", "_later_starts")

    def __init__(self, pieces: Sequence[tuple[int, Choice]]) -> None:
        # Without the first start every number of rows, zero included, falls into a piece.
        self._later_starts = [start for start, _ in pieces[1:]]
        self._choices = [choice for _, choice in pieces]

    def __call__(self, rows: int) -> Choice:
        return self._choices[bisect_right(self._later_starts, rows)]

    @property
    def pieces(self) -> tuple[tuple[int, Choice], ...]:
        return tuple(zip([1, *self._later_starts], self._choices, strict=True))


@dataclass(frozen=True)
class DispatchTable:
    """The choices of one device.

    Attributes
    ----------
    entries : of the shapes that were measured.
    default : for a dtype of which nothing was measured.

    Raises
    ------
    ValueError : a choice does not start at 1 row, or its starts do not increase.
    """

    entries: Mapping[WeightShape, Inflections] = field(default_factory=dict)
    default: Inflections = DEFAULT_INFLECTIONS

    def __post_init__(self) -> None:
        for inflections in (self.default, *self.entries.values()):
            check_inflections(inflections)

    def inflections(self, shape: WeightShape) -> Inflections:
        """Those of the shape or, if it was not measured, of the nearest of its dtype by ``log n`` and ``log k``."""
        if shape in self.entries:
            return self.entries[shape]
        near = [other for other in self.entries if other.dtype == shape.dtype]
        if not near:
            return self.default
        return self.entries[min(near, key=lambda other: (_distance(shape, other), other.n, other.k))]

    def picker(self, n: int, k: int, dtype: torch.dtype) -> Picker[str]:
        """The look-up for one weight, to be kept beside it."""
        return Picker(self.inflections(WeightShape(n, k, dtype)))

    def pick(self, n: int, k: int, dtype: torch.dtype, m: int) -> str:
        """Name of the implementation for ``m`` rows."""
        return self.picker(n, k, dtype)(m)

    def bind(
        self, implementations: Sequence[Implementation], n: int, k: int, dtype: torch.dtype
    ) -> Picker[Implementation]:
        """Like ``picker``, but gives what can be run.

        Where the table names an implementation that is not among these or does not take the dtype or so many rows,
        the last one that takes any number of rows stands in.

        Raises
        ------
        ValueError : none takes any number of rows of this dtype.
        """
        inflections = self.inflections(WeightShape(n, k, dtype))
        return Picker(runnable_pieces(inflections, implementations, dtype))

    def merged(self, newer: "DispatchTable") -> "DispatchTable":
        """This table with the entries of another, which win."""
        return DispatchTable({**self.entries, **newer.entries}, self.default)


def runnable_pieces(
    inflections: Inflections, implementations: Sequence[Implementation], dtype: torch.dtype
) -> tuple[tuple[int, Implementation], ...]:
    """See ``DispatchTable.bind``."""
    usable = {each.name: each for each in implementations if each.takes(dtype, 1)}
    unlimited = [each for each in usable.values() if each.max_rows is None]
    if not unlimited:
        raise ValueError(f"no implementation multiplies any number of rows in {dtype}")
    stand_in = unlimited[-1]
    pieces: list[tuple[int, Implementation]] = []
    for start, name in inflections:
        found = usable.get(name, stand_in)
        pieces.append((start, found if found.takes(dtype, start) else stand_in))
    ends: list[float] = [*(start for start, _ in pieces[1:]), math.inf]
    bounded: list[tuple[int, Implementation]] = []
    for (start, found), end in zip(pieces, ends, strict=True):
        bounded.append((start, found))
        if found.max_rows is not None and found.max_rows + 1 < end:
            bounded.append((found.max_rows + 1, stand_in))
    return without_repeats(bounded)


def without_repeats(pieces: Iterable[tuple[int, Choice]]) -> tuple[tuple[int, Choice], ...]:
    """Pieces whose neighbours differ."""
    kept: list[tuple[int, Choice]] = []
    for start, choice in pieces:
        if not kept or kept[-1][1] != choice:
            kept.append((start, choice))
    return tuple(kept)


def check_inflections(inflections: Inflections) -> None:
    """Raise ValueError unless they cover every number of rows."""
    starts = [start for start, _ in inflections]
    if not starts or starts[0] != 1 or any(b <= a for a, b in pairwise(starts)):
        raise ValueError(f"inflection points must begin at 1 and increase, got {starts}")


def _distance(one: WeightShape, other: WeightShape) -> float:
    return math.hypot(math.log(one.n / other.n), math.log(one.k / other.k))
