"""Text files as traces and recordings use them: plain or gzip, read by line, written whole or not at all."""

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, unpacked when its name ends in ``.gz``.

    Raises
    ------
    ValueError : the file is absent, unreadable, no gzip file, cut short, or not UTF-8.
    """
    try:
        with _open(path) as file:
            yield from file
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not UTF-8 text") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(f"{path}: cannot be read ({reason})") from None


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline=None)
    return path.open(encoding="utf-8-sig")


def write_atomically(path: Path, lines: Iterable[str]) -> None:
    """Write ``lines``, each ended by a line break, to a temporary sibling and move it over ``path``.

    Raises
    ------
    ValueError : the folder does not exist or cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)
