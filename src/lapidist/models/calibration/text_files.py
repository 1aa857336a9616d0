"""Reading the text that a user wants a model to be calibrated on."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path


def read_texts(files: Iterable[Path]) -> list[str]:
    """The documents of text files: each a document, or one per line of a ``.jsonl`` as ``{"text": ...}``.

    Either may be packed as ``.gz``.

    Raises
    ------
    ValueError : a file cannot be read; one sentence naming it, and the line.
    """
    return [text for file in files for text in _documents(file)]


def _documents(file: Path) -> Iterator[str]:
    is_packed = file.suffix.lower() == ".gz"
    try:
        with gzip.open(file, "rt", encoding="utf-8") if is_packed else file.open(encoding="utf-8") as stream:
            contents = stream.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text (byte {error.start}): convert it") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(f"{file} cannot be read: {reason}") from None
    if Path(file.stem if is_packed else file.name).suffix.lower() != ".jsonl":
        yield contents
        return
    for number, line in enumerate(contents.splitlines(), 1):
        if line.strip():
            yield _text_of(line, f"{file}, line {number}")


def _text_of(line: str, where: str) -> str:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(f"{where} is not valid JSON") from None
    text = found.get("text") if isinstance(found, dict) else None
    if not isinstance(text, str):
        raise ValueError(f'{where} must be an object with a string "text"')
    return text
