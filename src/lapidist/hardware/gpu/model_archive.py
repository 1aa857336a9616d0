"""Fitted models on disk: a zip of named byte strings, written whole, the same bytes for the same models."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

_ALWAYS = (1980, 1, 1, 0, 0, 0)


def write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    """The file appears whole or not at all.

    Raises
    ------
    ValueError : the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:
            for name in sorted(files):
                archive.writestr(zipfile.ZipInfo(name, _ALWAYS), files[name], zipfile.ZIP_DEFLATED)
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)


def read_archive(path: Path) -> dict[str, bytes]:
    """What :func:`write_archive` wrote.

    Raises
    ------
    ValueError : the file cannot be read or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not a file of fitted models ({error})") from None
