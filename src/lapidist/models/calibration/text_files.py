"""Reading the text that a user wants a model to be calibrated on."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path


def read_texts(files: Iterable[Path]) -> list[str]:
    """The documents of text files: each a document, or one per line of a ``.jsonl`` as ``{"text": ...}``.

    Raises
    ------
    ValueError : a file cannot be read; one sentence naming it, and the line.
    """
    return [text for file in files for text in _documents(file)]


def _documents(file: Path) -> Iterator[str]:
    try:
        contents = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text (byte {error.start}): convert it") from None
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    if file.suffix.lower() != ".jsonl":
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
