"""Arguments that the commands of ``lapidist wafer`` share, and the device they mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lapidist.hardware.wafer.cost import CostModel
    from lapidist.hardware.wafer.device import Device
    from lapidist.hardware.wafer.regions import Grid

DeviceName = Annotated[
    str, typer.Option("--device", help="wse-2, wse-3, or the YAML file of a device.", metavar="DEVICE")
]
Constants = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of cost constants, such as wafer calibrate --save writes, or wse-2 or wse-3 for theirs. "
        "(default: those of the device)",
        dir_okay=False,
    ),
]
ClockGHz = Annotated[
    float | None,
    typer.Option(
        help="Clock that turns cycles into seconds. (default: the device's)", metavar="GHZ", min=0.001
    ),
]
GridOption = Annotated[str, typer.Option("--grid", help="Cores: a side, or ROWSxCOLS.", metavar="GRID")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Picture = Annotated[Path | None, typer.Option(help="Picture: .png, .svg or .pdf.", dir_okay=False)]


def load_wafer(device: str, constants: Path | None, clock_ghz: float | None) -> "tuple[Device, CostModel]":
    """The device with its clock, and its cost model.

    Raises
    ------
    ValueError : the device or the file of constants is unknown or wrong, or the device has no constants.
    """
    from lapidist.hardware.wafer.cost import CostModel
    from lapidist.hardware.wafer.cost_constants import (
        CALIBRATED_DEVICES,
        calibrated_constants,
        read_constants,
    )
    from lapidist.hardware.wafer.device import load_device

    found = load_device(device)
    if clock_ghz is not None:
        found = found.with_values("--clock-ghz", clock_hz=clock_ghz * 1e9)
    named = found.name if constants is None else str(constants)
    if constants is None or named in CALIBRATED_DEVICES:
        cycles = calibrated_constants(named)
    else:
        cycles = read_constants(constants)
    return found, CostModel(cycles, found.link_bytes_per_cycle)


def parse_sides(text: str, count: int, what: str) -> tuple[int, ...]:
    """``count`` sides from ``4096`` (all alike) or ``4096x4096x11008``; raises ValueError naming ``what``."""
    sides = text.lower().replace("×", "x").split("x")
    if len(sides) not in (1, count) or not all(side.strip().isdecimal() and int(side) for side in sides):
        example = "x".join("MKN"[-count:])
        raise ValueError(f"{what} is one side or {example}, such as 4096, got {text!r}")
    return tuple(int(side) for side in (sides * count if len(sides) == 1 else sides))


def parse_grids(text: str) -> "list[Grid]":
    """Grids with commas between them; raises ValueError for one that is none."""
    from lapidist.hardware.wafer.regions import Grid

    return [Grid.parse(part) for part in text.split(",")]


def check_pictures(*paths: Path | None) -> None:
    """Refuse what cannot be written before anything is computed; raises ValueError."""
    from lapidist.figure_file import check_format

    for path in paths:
        if path is None:
            continue
        check_format(path)
        if not path.parent.is_dir():
            raise ValueError(f"{path}: the folder {path.parent} does not exist")
