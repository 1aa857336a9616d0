"""The text that needles are hidden in: the user's files in a fixed order, or generated prose."""

from pathlib import Path

from lapidist.evaluation.long_context.generated_prose import generated_prose
from lapidist.models.calibration.text_files import read_texts

_SUFFIXES = (".txt", ".jsonl", ".gz")
_GENERATED_CHARACTERS_PER_TOKEN = 8  # more than any tokenizer makes of English


def read_haystack(path: Path | None, tokens: int) -> list[str]:
    """Documents of a file, or of the files of a folder by name; without a path generated prose of at least ``tokens``
    tokens.

    Raises
    ------
    ValueError : there is no such file, or no text in the folder, or one cannot be read.
    """
    if path is None:
        return [generated_prose(tokens * _GENERATED_CHARACTERS_PER_TOKEN)]
    if not path.exists():
        raise ValueError(f"{path} does not exist: name a text file or a folder of them")
    if not path.is_dir():
        return read_texts([path])
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise ValueError(
            f"{path} has no {', '.join(_SUFFIXES)} files: name a folder of text files, or a file"
        )
    return read_texts(files)
