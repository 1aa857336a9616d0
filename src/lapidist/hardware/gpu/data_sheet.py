"""What a GPU's maker states about it: rates, bandwidths, sizes, power; one YAML file per GPU in ``data_sheets``.

A user's YAML file may describe a new GPU in full or start from a known one::

    extends: l40s
    name: l40s-300w
    tdp_watts: 300
"""

import datetime
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FOLDER = Path(__file__).parent / "data_sheets"
ComputeType = Literal["fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4", "fp4"]
Clock = Literal["boost", "max"]

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(gt=0)]


class _Sheet(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Link(_Sheet):
    """The way to the other GPUs of the same machine; bytes per second in one direction."""

    name: str
    bytes_per_second: _Positive


class Price(_Sheet):
    """What renting one such GPU cost, where and when; prices move, so users give their own."""

    dollars_per_hour: _Positive
    source: str
    date: datetime.date


class DataSheet(_Sheet):
    """One GPU.

    Attributes
    ----------
    operations_per_cycle_per_sm : dense operations by compute type, a fused multiply-add counted as two.
    boost_mhz : the clock behind the published peak rates.
    max_mhz : the highest SM clock the device can reach; consumer cards run well above their published boost.
    memory_bytes_per_second : of the device memory. ``link``: to the other GPUs. ``pcie_bytes_per_second``: to the host.
    idle_watts : of the card with nothing to do.
    sources : where the numbers come from.
    """

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    architecture: str
    compute_capability: str
    sms: _Count
    boost_mhz: _Positive
    max_mhz: _Positive
    operations_per_cycle_per_sm: dict[ComputeType, _Positive]
    memory_bytes: _Count
    memory_bytes_per_second: _Positive
    l2_bytes: _Count
    shared_memory_bytes_per_sm: _Count
    max_threads_per_sm: _Count
    max_blocks_per_sm: _Count
    tdp_watts: _Positive
    idle_watts: _Positive
    link: Link
    pcie_bytes_per_second: _Positive
    price: Price | None = None
    sources: tuple[str, ...]

    @model_validator(mode="after")
    def _consistent(self) -> "DataSheet":
        if self.max_mhz < self.boost_mhz:
            raise ValueError(f"max_mhz {self.max_mhz:g} is below boost_mhz {self.boost_mhz:g}")
        if self.idle_watts >= self.tdp_watts:
            raise ValueError(f"idle_watts {self.idle_watts:g} is not below tdp_watts {self.tdp_watts:g}")
        return self

    def operations_per_second(self, compute: ComputeType, clock: Clock = "boost") -> float:
        """Peak dense rate of a compute type.

        >>> round(load_data_sheet("h100").operations_per_second("bf16") / 1e12)
        989

        Raises
        ------
        ValueError : the GPU has no such units.
        """
        per_cycle = self.operations_per_cycle_per_sm.get(compute)
        if per_cycle is None:
            known = ", ".join(self.operations_per_cycle_per_sm)
            raise ValueError(f"{self.name} does not compute in {compute}; its data sheet has {known}")
        return per_cycle * self.sms * self.megahertz(clock) * 1e6

    @property
    def sixteen_bit(self) -> ComputeType:
        """What models of 16-bit weights are computed in: bf16, else fp16, else fp32."""
        wanted: tuple[ComputeType, ...] = ("bf16", "fp16")
        return next((compute for compute in wanted if compute in self.operations_per_cycle_per_sm), "fp32")

    def megahertz(self, clock: Clock) -> float:
        return self.boost_mhz if clock == "boost" else self.max_mhz


def load_data_sheet(gpu: str | Path) -> DataSheet:
    """The sheet of a GPU by name, alias or the title its driver reports, or from a YAML file.

    Names are compared without regard to case, spaces, underscores and a leading "NVIDIA".

    Raises
    ------
    ValueError : no such GPU, or the file is unreadable or wrong; the sentence names file and key.
    """
    if isinstance(gpu, Path) or gpu.endswith((".yaml", ".yml")):
        return _read(Path(gpu))
    name = _names().get(_plain(gpu))
    if name is None:
        raise ValueError(
            f"no data sheet of a GPU named {gpu!r}; known are {', '.join(data_sheet_names())}, "
            "or give the path of a YAML file"
        )
    return _bundled(name)


def data_sheet_names() -> tuple[str, ...]:
    """Names of the sheets that ship with the package, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


@functools.cache
def _bundled(name: str) -> DataSheet:
    return _read(FOLDER / f"{name}.yaml")


@functools.cache
def _names() -> dict[str, str]:
    names: dict[str, str] = {}
    for name in data_sheet_names():
        sheet = _bundled(name)
        for spelling in (sheet.name, sheet.title, *sheet.aliases):
            names.setdefault(_plain(spelling), name)
    return names


def _plain(name: str) -> str:
    plain = name.strip().casefold().replace("_", "-").replace(" ", "-")
    return plain.removeprefix("nvidia-").removeprefix("geforce-").removeprefix("tesla-")


def _read(path: Path) -> DataSheet:
    content = _yaml(path)
    base = content.pop("extends", None)
    if base is not None:
        if not isinstance(base, str):
            raise ValueError(f"{path}: extends must be the name of a GPU, got {base!r}")
        content = _extend(base, content, path)
    try:
        return DataSheet.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        where = f"key {key!r}: " if key else ""
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ValueError(f"{path}: {where}{first['msg'].removeprefix('Value error, ')}{more}") from None


def _extend(base: str, content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The keys of ``content`` over those of ``base``; a mapping is merged, not replaced."""
    if base not in data_sheet_names():
        raise ValueError(
            f"{path}: extends {base!r}, which is no data sheet; known: {', '.join(data_sheet_names())}"
        )
    merged = _bundled(base).model_dump()
    merged["aliases"] = ()
    for key, value in content.items():
        old = merged.get(key)
        merged[key] = {**old, **value} if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ValueError(f"{path}: cannot be read ({reason})") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a data sheet is a mapping of keys to values")
    return content
