"""Regions of a wafer: rectangles of cores, one for each stage of a pipeline of layers."""

from dataclasses import dataclass

from lapidist.hardware.wafer.device import Device


@dataclass(frozen=True)
class Grid:
    """``rows`` x ``cols`` cores; raises ValueError unless both are positive."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if min(self.rows, self.cols) < 1:
            raise ValueError(f"a grid has at least one row and one column, got {self.rows} x {self.cols}")

    @staticmethod
    def parse(text: str) -> "Grid":
        """From ``660`` (square) or ``331x375``; raises ValueError for anything else."""
        sides = text.lower().replace("×", "x").split("x")
        if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
            raise ValueError(f"a grid is a side or rows x columns, such as 660 or 331x375, got {text!r}")
        return Grid(int(sides[0]), int(sides[-1]))

    @property
    def cores(self) -> int:
        return self.rows * self.cols

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


def layers_of_a_region(one: int, two: int, limit: int, layers: int) -> int:
    """How many of a model's ``layers`` a region holds, 0 if not even one fits.

    A core needs ``one`` bytes with one layer, ``two`` with two, and has ``limit``.
    """
    return 0 if one > limit else min(layers, 1 + (limit - one) // (two - one))


def require_on_wafer(device: Device, grid: Grid) -> None:
    """Raises ValueError if the device has no such rectangle, in neither direction."""
    if regions_on_wafer(device, grid) == 0:
        raise ValueError(
            f"{grid} cores do not fit on {device.title}, which has {device.rows} x {device.cols} for programs"
        )


def regions_on_wafer(device: Device, grid: Grid) -> int:
    """Most disjoint regions of that shape in bands across the wafer, those of a band upright or turned by a quarter."""
    sides = (grid.rows, grid.cols)
    return max(_in_bands(device.rows, device.cols, *sides), _in_bands(device.cols, device.rows, *sides))


def _in_bands(length: int, width: int, a: int, b: int) -> int:
    """Bands as long as ``width``, of thickness ``a`` or ``b``, stacked along ``length``."""
    return max(
        bands * (width // b) + (length - bands * a) // b * (width // a) for bands in range(length // a + 1)
    )
