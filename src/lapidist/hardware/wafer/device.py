"""A mesh of small cores as WaferLLM's PLMR sees it: Parallelism, Latency, local Memory, Routing (arXiv 2502.04563).

Every value of a device says where it comes from. A user's YAML file describes a device in full or starts from a
known one, or from another file that lies beside it::

    extends: wse-2
    name: wse-2-slow
    clock_hz: {value: 0.85e+9, source: "arXiv 2404.15888"}
"""

import functools
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FOLDER = Path(__file__).parent / "devices"

_Count = Annotated[int, Field(gt=0)]
_Side = Annotated[int, Field(gt=0, le=100_000)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Device(BaseModel):
    """A mesh device; latencies are not here but calibrated (``cost`` constants).

    Attributes
    ----------
    rows, cols : the largest rectangle of cores a program may use.
    torus : the network wraps around; the algorithms here use it as a mesh.
    memory_bytes_per_core : of which ``reserved_bytes_per_core`` are taken by code and stack.
    colours : routes that one router can hold; None where packets find their way without.
    clock_hz : only turns cycles into seconds.
    link_bytes_per_cycle : of one link in one direction.
    macs_per_cycle_per_core : peak fp16 multiply-accumulates, None if not stated.
    watts : of the whole device, None if not stated.
    sources : where each value comes from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    rows: _Side
    cols: _Side
    torus: bool
    memory_bytes_per_core: _Count
    reserved_bytes_per_core: Annotated[int, Field(ge=0)]
    colours: _Count | None
    clock_hz: _Positive
    link_bytes_per_cycle: _Count
    macs_per_cycle_per_core: _Positive | None
    watts: _Positive | None
    sources: dict[str, str]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.reserved_bytes_per_core >= self.memory_bytes_per_core:
            raise ValueError("reserved_bytes_per_core leave nothing of memory_bytes_per_core")
        return self

    @property
    def usable_bytes_per_core(self) -> int:
        """Memory for data."""
        return self.memory_bytes_per_core - self.reserved_bytes_per_core

    def with_values(self, source: str, **values: Any) -> "Device":
        """The same device with some values replaced, all from ``source``; raises ValueError for a wrong one."""
        sources = self.sources | dict.fromkeys(values, source)
        return _validated({**self.model_dump(), **values, "sources": sources}, source)


def device_names() -> tuple[str, ...]:
    """Names of the devices that ship with the package, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def load_device(device: str | Path) -> Device:
    """A device by name, or from a YAML file.

    Raises
    ------
    ValueError : no such device, or the file is unreadable or wrong; the sentence names file and key.
    """
    if isinstance(device, Path) or device.endswith((".yaml", ".yml")):
        return _read(Path(device), ())
    name = device.strip().casefold().replace("_", "-")
    if name not in device_names():
        raise ValueError(
            f"no wafer device named {device!r}; known are {', '.join(device_names())}, "
            "or give the path of a YAML file"
        )
    return _bundled(name)


@functools.cache
def _bundled(name: str) -> Device:
    return _read(FOLDER / f"{name}.yaml", ())


def _read(path: Path, extended_by: tuple[Path, ...]) -> Device:
    if path.resolve() in extended_by:
        raise ValueError(f"{path}: extends itself, directly or by way of other files")
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: expected keys and values, got {type(fields).__name__}")
    base: dict[str, Any] = {"sources": {}}
    extends = fields.pop("extends", None)
    if extends is not None:
        name = _text(extends, path, "extends")
        is_file = name.endswith((".yaml", ".yml"))
        found = _read(path.parent / name, (*extended_by, path.resolve())) if is_file else load_device(name)
        base = found.model_dump()
    sources = dict(base["sources"])
    values: dict[str, Any] = {}
    for key, entry in fields.items():
        if key in ("name", "title"):
            values[key] = entry
        elif not isinstance(entry, dict) or set(entry) != {"value", "source"}:
            raise ValueError(f"{path}: {key} needs {{value: ..., source: ...}}, got {entry!r}")
        else:
            values[key] = entry["value"]
            sources[key] = _text(entry["source"], path, f"{key}.source")
    if extends is not None and "name" in values:
        values.setdefault("title", values["name"])
    return _validated({**base, **values, "sources": sources}, str(path))


def _text(value: object, path: Path, key: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{path}: {key} must be a text, got {value!r}")
    return value


def _validated(fields: dict[str, Any], where: str) -> Device:
    try:
        return Device.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "device"
        raise ValueError(f"{where}: {key}: {first['msg']}") from None
