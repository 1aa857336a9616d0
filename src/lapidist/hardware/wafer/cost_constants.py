"""The constants of a mesh's cost model, in cycles, each with where its value comes from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from lapidist.workload.text_files import read_lines, write_atomically

CALIBRATED_DEVICES = ("wse-2", "wse-3")


def _cycles(meaning: str, per: str) -> Any:
    """A constant of ``CostConstants``; every one is a number of cycles, or a share of them, from zero."""
    return field(metadata={"meaning": meaning, "unit": f"cycles per {per}"})


@dataclass(frozen=True)
class CostConstants:
    """What the primitive steps of mesh algorithms cost on one device; ``sources`` says where each value comes from.

    The terms are those of WaferLLM's PLMR model (arXiv 2502.04563, section 3) and of the wafer-scale reductions of
    arXiv 2404.15888: ``hop`` is PLMR's alpha and ``stage`` its beta. See :mod:`lapidist.hardware.wafer.cost` for the
    formulas.

    ``relative_error`` is no constant but what they are worth: nine of ten forecasts of a whole model are expected to be
    off by a factor of at most ``1 + relative_error``; None where nobody measured whole models.
    """

    launch: float = _cycles("starting a matrix product", "kernel")
    step: float = _cycles("hand-off to the next shift of a ring, its first two hops included", "step")
    k_iteration: float = _cycles("outer loop of the local product", "row of the tile of B")
    fma_call: float = _cycles("issuing one vector FMA in a matrix product", "call")
    fma_mac: float = _cycles("a multiply-accumulate in a matrix product", "multiply-accumulate")
    moved_element: float = _cycles("memory accesses of tiles that move behind the work", "element moved")
    overlap_slowdown: float = _cycles("work slowed down while tiles move", "cycle of work")
    overlap_window: float = _cycles("time for which moving tiles slow the work down", "step")
    hop: float = _cycles("router to router (PLMR's alpha)", "hop")
    stage: float = _cycles("software of a core receives, adds, sends on (PLMR's beta)", "routing stage")
    allreduce_launch: float = _cycles("starting an all-reduce and learning that it ended", "all-reduce")
    allreduce_floor: float = _cycles("shortest trip of an all-reduce however small the mesh", "all-reduce")
    pass_element: float = _cycles("streaming a vector through the cores once", "element and pass")
    gemv_call: float = _cycles("issuing one vector FMA in a matrix-vector product", "call")
    gemv_mac: float = _cycles("a multiply-accumulate in a matrix-vector product", "multiply-accumulate")
    pointwise_operation: float = _cycles("norms, rotations, activations, sums", "element and operation")
    relative_error: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        for name in CONSTANT_NAMES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ValueError(f"cost constant {name} must be a number of cycles from 0, got {value!r}")
        error = self.relative_error
        if error is not None and (
            isinstance(error, bool) or not isinstance(error, int | float) or not 0 <= error < float("inf")
        ):
            raise ValueError(f"relative_error must be a share from 0, got {error!r}")

    def with_values(self, values: Mapping[str, float], source: str) -> "CostConstants":
        """A copy with some values changed, their ``source`` noted; what the old ones were worth is forgotten.

        Raises
        ------
        ValueError : there is no constant of that name.
        """
        for name in values:
            _require_known(name)
        sources = {name: text for name, text in self.sources.items() if name != "relative_error"}
        noted = {**sources, **dict.fromkeys(values, source)}
        return replace(self, sources=noted, relative_error=None, **values)

    def with_error(self, relative_error: float, source: str) -> "CostConstants":
        """A copy that states how far off forecasts of whole models are."""
        sources = {**self.sources, "relative_error": source}
        return replace(self, sources=sources, relative_error=relative_error)

    def write(self, path: Path, title: str) -> None:
        """Write a YAML file that ``read_constants`` reads; it appears complete or not at all."""
        rows: dict[str, dict[str, object]] = {
            name: {"cycles": float(f"{getattr(self, name):.6g}"), "source": self.sources.get(name, "")}
            for name in CONSTANT_NAMES
        }
        if self.relative_error is not None:
            share = float(f"{self.relative_error:.3g}")
            rows["relative_error"] = {"share": share, "source": self.sources.get("relative_error", "")}
        text = yaml.safe_dump(rows, sort_keys=False, width=110, allow_unicode=True)
        write_atomically(path, [f"# {line}" for line in title.splitlines()] + text.splitlines())


CONSTANT_NAMES = tuple(
    each.name for each in fields(CostConstants) if each.name not in ("relative_error", "sources")
)
"""All constants, in the order of the formulas."""


def meaning(name: str) -> tuple[str, str]:
    """What a constant stands for, and its unit."""
    _require_known(name)
    metadata = next(each.metadata for each in fields(CostConstants) if each.name == name)
    return metadata["meaning"], metadata["unit"]


def read_constants(path: Path) -> CostConstants:
    """Constants of a YAML file ``name: {cycles: number, source: text}``.

    It may have ``relative_error: {share: number, source: text}``, how far off forecasts with them are.

    Raises
    ------
    ValueError : the file cannot be read, or lacks a constant, or has one that is unknown or no number.
    """
    try:
        rows = yaml.safe_load("".join(read_lines(path)))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(rows, dict):
        raise ValueError(f"{path}: expected one line 'name: {{cycles: ..., source: ...}}' per constant")
    missing = [name for name in CONSTANT_NAMES if name not in rows]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}")
    off = rows.pop("relative_error", None)
    try:
        for name, row in rows.items():
            _require_known(name)
            if not isinstance(row, dict) or "cycles" not in row:
                raise ValueError(f"{name} needs 'cycles' and 'source', got {row!r}")
        found = CostConstants(
            **{name: rows[name]["cycles"] for name in CONSTANT_NAMES},
            sources={name: str(rows[name].get("source", "")) for name in CONSTANT_NAMES},
        )
        if off is None:
            return found
        if not isinstance(off, dict) or "share" not in off:
            raise ValueError(f"relative_error needs 'share' and 'source', got {off!r}")
        return found.with_error(off["share"], str(off.get("source", "")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def calibrated_constants(device: str) -> CostConstants:
    """The shipped constants of a calibrated device, ``wse-2`` or ``wse-3``; raises ValueError for others."""
    if device not in CALIBRATED_DEVICES:
        raise ValueError(
            f"no calibrated cost constants for {device!r} (only for {', '.join(CALIBRATED_DEVICES)}); "
            "take those of one of these devices, give a file of constants, or measurements to calibrate"
        )
    return read_constants(Path(str(files("lapidist.hardware.wafer") / "constants" / f"{device}.yaml")))


def _require_known(name: object) -> None:
    if name not in CONSTANT_NAMES:
        raise ValueError(f"unknown cost constant {name!r}; known are {', '.join(CONSTANT_NAMES)}")
