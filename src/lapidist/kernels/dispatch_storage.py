"""Dispatch tables on disk: one JSON file per machine, kept in the user's cache directory."""

import json
import logging
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from lapidist.kernels.dispatch import DispatchTable, Inflections, WeightShape
from lapidist.kernels.machine import machine_name, machine_slug

if sys.platform != "win32":
    import fcntl

SCHEMA = 1
VARIABLE = "LAPIDIST_DISPATCH_TABLE"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_log = logging.getLogger(__name__)


class DispatchTableError(ValueError):
    """A file does not hold a dispatch table; the message is one sentence that names it."""


def table_file(device: torch.device) -> Path:
    """Where the device's table lies: ``LAPIDIST_DISPATCH_TABLE``, else in the user's cache directory."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "lapidist" / "dispatch" / f"{machine_slug(device)}.json"


def load_table(device: torch.device, names: Collection[str] | None = None) -> DispatchTable:
    """The table that was measured on this machine; the default one where there is none.

    A file that cannot be used is reported in one warning and otherwise treated as absent.

    Parameters
    ----------
    names : the implementations that there are; a table that names others is out of date.
    """
    file = table_file(device)
    if not file.exists() and not os.environ.get(VARIABLE):
        return DispatchTable()
    try:
        return read_table(file, names)
    except DispatchTableError as error:
        _log.warning("%s: the default table is used; `lapidist tune` measures a new one", error)
        return DispatchTable()


def read_table(file: Path, names: Collection[str] | None = None) -> DispatchTable:
    """The table in a file.

    Raises
    ------
    DispatchTableError : it cannot be read, holds something else, or names an implementation not in ``names``.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DispatchTableError(f"{file} does not exist") from None
    except OSError as error:
        raise DispatchTableError(f"{file} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise DispatchTableError(f"{file} is not valid JSON") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise DispatchTableError(f"{file} is not a dispatch table of schema {SCHEMA}")
    try:
        entries = dict(_read_entry(row) for row in content["entries"])
        table = DispatchTable(entries)
    except (KeyError, TypeError, ValueError):
        raise DispatchTableError(f"{file} has an entry that is not valid") from None
    used = {name for inflections in entries.values() for _, name in inflections}
    if names is not None and (unknown := used - set(names)):
        raise DispatchTableError(f"{file} names the unknown implementation {min(unknown)!r}")
    return table


def save_table(table: DispatchTable, device: torch.device) -> Path:
    """Add the table's entries to the device's file, in place of older ones of the same shapes; returns the file.

    Two processes that save at once both get their entries in. A file that was not valid is replaced.

    Raises
    ------
    ValueError : the file cannot be written.
    """
    file = table_file(device)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _lock(file):
            merged = _existing(file).merged(table)
            _write(file, {"schema": SCHEMA, "machine": machine_name(device), "entries": entry_rows(merged)})
    except OSError as error:
        raise _not_writable(file, error) from None
    return file


def check_writable(device: torch.device) -> Path:
    """The device's file, after making sure, before minutes of measuring, that it can be written.

    Raises
    ------
    ValueError : it cannot be.
    """
    file = table_file(device)
    try:
        if file.is_dir():
            raise IsADirectoryError(None, "is a directory")
        file.parent.mkdir(parents=True, exist_ok=True)
        trial = _temporary(file)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise _not_writable(file, error) from None
    return file


def entry_rows(table: DispatchTable) -> list[dict[str, Any]]:
    """The table's entries as they are stored: ``dtype``, ``n``, ``k``, ``inflections``."""
    return [
        {
            "dtype": _DTYPE_NAMES[shape.dtype],
            "n": shape.n,
            "k": shape.k,
            "inflections": [list(piece) for piece in inflections],
        }
        for shape, inflections in table.entries.items()
    ]


def _read_entry(row: Any) -> tuple[WeightShape, Inflections]:
    """Raises KeyError, TypeError or ValueError for what is no entry."""
    inflections = tuple((_integer(start), _text(name)) for start, name in row["inflections"])
    return WeightShape(_integer(row["n"]), _integer(row["k"]), _DTYPES[row["dtype"]]), inflections


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _existing(file: Path) -> DispatchTable:
    if not file.exists():
        return DispatchTable()
    try:
        return read_table(file)
    except DispatchTableError as error:
        _log.warning("%s: it is replaced", error)
        return DispatchTable()


def _write(file: Path, content: dict[str, Any]) -> None:
    temporary = _temporary(file)
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(file: Path) -> Path:
    return file.with_name(f".{file.name}.{os.getpid()}.tmp")


def _not_writable(file: Path, error: OSError) -> ValueError:
    return ValueError(
        f"the dispatch table {file} cannot be written ({error.strerror}): name another file in {VARIABLE}"
    )


@contextmanager
def _lock(file: Path) -> Iterator[None]:
    """Keeps other processes from saving to the file; does nothing on systems and file systems without locks."""
    with file.with_name(f".{file.name}.lock").open("w") as lock:
        if sys.platform != "win32":
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file lifts the lock
