"""Reading and writing a JSON file of a checkpoint."""

import json
from pathlib import Path
from typing import Any

from lapidist.models.errors import CheckpointError


def read_json_object(file: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises
    ------
    CheckpointError : the file cannot be read, is not JSON, or holds something else than an object.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not valid JSON ({error}): download it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{file} must hold a JSON object, not {type(found).__name__}: download it again"
        )
    return found


def write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
