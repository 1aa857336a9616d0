"""Measured kernel cycles from CSV files, as measurements to calibrate with.

Two tables are known, by their columns: ``P, Mt, Kt, Nt, cycles`` of MeshGEMM with alignment on the mesh and
``P, Mt, Nt, G, cycles`` of MeshGEMV with ``G`` groups in the first phase of its tree, each on ``P`` x ``P`` cores with
tiles of ``Mt`` x ``Kt`` x ``Nt`` or ``Mt`` x ``Nt``. Rows of one file are of one kind; more columns do no harm.
"""

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lapidist.hardware.wafer.calibration import Measurement
from lapidist.hardware.wafer.gemm_algorithms import GEMMShape, mesh_gemm
from lapidist.hardware.wafer.gemv_algorithms import mesh_gemv
from lapidist.workload.text_files import read_lines

_GEMM_COLUMNS = ("P", "Mt", "Kt", "Nt")
_GEMV_COLUMNS = ("P", "Mt", "Nt", "G")
_DIGITS = 5  # of sides of meshes and tiles; no wafer has longer ones


@dataclass(frozen=True)
class KernelRun:
    """A row of a table: mesh side, the columns that say what ran, and its measurement."""

    side: int
    columns: Mapping[str, int]
    measurement: Measurement


def read_kernel_runs(path: Path) -> list[KernelRun]:
    """All rows of a table, in order.

    Raises
    ------
    ValueError : the file cannot be read, is neither table, or has no rows; a row is not of positive numbers. The
        sentence names file and line.
    """
    rows = csv.DictReader(read_lines(path))
    try:
        return _read(path, rows)
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: no CSV ({error})") from None


def _read(path: Path, rows: "csv.DictReader[str]") -> list[KernelRun]:
    header = [name.strip() for name in rows.fieldnames or ()]
    rows.fieldnames = header
    columns, measurement = _kind(path, header)
    runs = []
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        values = {name: _whole(row.get(name), name, where) for name in columns}
        cycles = _positive(row.get("cycles"), where)
        label = " ".join(f"{name}={value}" for name, value in values.items())
        try:
            runs.append(KernelRun(values["P"], values, measurement(label, values, cycles)))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if not runs:
        raise ValueError(f"{path}: no rows below the header")
    return runs


_Build = Callable[[str, Mapping[str, int], float], Measurement]


def _kind(path: Path, header: list[str]) -> tuple[tuple[str, ...], _Build]:
    for columns, measurement in ((_GEMM_COLUMNS, _gemm), (_GEMV_COLUMNS, _gemv)):
        if {*columns, "cycles"} <= set(header):
            return columns, measurement
    raise ValueError(
        f"{path}: expected the columns {', '.join(_GEMM_COLUMNS)}, cycles (MeshGEMM) or "
        f"{', '.join(_GEMV_COLUMNS)}, cycles (MeshGEMV), got {', '.join(header) or 'no header'}"
    )


def _gemm(label: str, row: Mapping[str, int], cycles: float) -> Measurement:
    side = row["P"]
    shape = GEMMShape(side * row["Mt"], side * row["Kt"], side * row["Nt"])
    return Measurement(f"GEMM {label}", ((mesh_gemm(shape, side, side), 1),), cycles)


def _gemv(label: str, row: Mapping[str, int], cycles: float) -> Measurement:
    side = row["P"]
    product = mesh_gemv(side * row["Mt"], side * row["Nt"], side, side, groups=row["G"])
    return Measurement(f"GEMV {label}", ((product, 1),), cycles)


def _whole(text: str | None, name: str, where: str) -> int:
    digits = (text or "").strip()
    if not digits.isdecimal() or len(digits) > _DIGITS or int(digits) < 1:
        raise ValueError(f"{where}: {name} must be a whole number from 1 to {'9' * _DIGITS}, got {text!r}")
    return int(digits)


def _positive(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ValueError(f"{where}: cycles must be a number above 0, got {text!r}")
    return value
