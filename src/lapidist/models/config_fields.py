"""Typed reading of a JSON object, with errors that name the file and the key."""

import json
from pathlib import Path
from typing import Any

from lapidist.models.errors import CheckpointError
from lapidist.models.json_file import read_json_object

_LARGEST = 2**31 - 1


class ConfigFields:
    """One JSON object of a configuration file. A field that is null counts as absent.

    Every method raises ``CheckpointError`` naming file and key if the field has the wrong type or range, or if
    it is absent and no ``default`` was given.
    """

    _REQUIRED: Any = object()

    def __init__(self, file: Path, values: dict[str, Any], prefix: str = "") -> None:
        self.file = file
        self._values = values
        self._prefix = prefix

    @classmethod
    def read(cls, file: Path) -> "ConfigFields":
        """The object that a JSON file holds."""
        if not file.exists():
            raise CheckpointError(f"{file} does not exist: give the directory of a Hugging Face checkpoint")
        return cls(file, read_json_object(file))

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def has_items(self, key: str) -> bool:
        """Whether there is a list that is not empty."""
        return bool(self._values.get(key))

    def integer(self, key: str, default: int = _REQUIRED, minimum: int = 1, maximum: int = _LARGEST) -> int:
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise self.error(key, f"must be an integer from {minimum} to {maximum}, got {_show(value)}")
        return value

    def optional_integer(self, key: str, default: int | None = None, minimum: int = 1) -> int | None:
        """Unlike the others this one tells null from absent: null is None, absent is ``default``."""
        if key not in self._values:
            return default
        return self.integer(key, minimum=minimum) if self.has(key) else None

    def positive(self, key: str, default: float = _REQUIRED) -> float:
        """A finite number above zero."""
        value = self._get(key, default)
        if not _is_number(value) or value <= 0:
            raise self.error(key, f"must be a positive number, got {_show(value)}")
        return float(value)

    def share(self, key: str, default: float = _REQUIRED) -> float:
        """A number from 0 to 1."""
        value = self._get(key, default)
        if not _is_finite(value) or not 0 <= value <= 1:
            raise self.error(key, f"must be a number from 0 to 1, got {_show(value)}")
        return float(value)

    def optional_positive(self, key: str, default: float | None = None) -> float | None:
        """Null is None, absent is ``default``."""
        if key not in self._values:
            return default
        return self.positive(key) if self.has(key) else None

    def boolean(self, key: str, default: bool = False) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, got {_show(value)}")
        return value

    def text(self, key: str, default: str = _REQUIRED) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.error(key, f"must be a string, got {_show(value)}")
        return value

    def choice(self, key: str, choices: dict[str, Any], default: str = _REQUIRED) -> Any:
        """The value that ``choices`` gives for the string in the field."""
        value = self.text(key, default)
        if value not in choices:
            raise self.error(key, f"is {value!r}, which is not supported; supported are {', '.join(choices)}")
        return choices[value]

    def texts(self, key: str, default: list[str] = _REQUIRED) -> list[str]:
        value = self._get(key, default)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"must be a list of strings, got {_show(value)}")
        return value

    def positives(self, key: str, length: int) -> tuple[float, ...]:
        """A list of ``length`` positive numbers."""
        value = self._get(key, self._REQUIRED)
        numbers = isinstance(value, list) and all(_is_number(item) and item > 0 for item in value)
        if not numbers or len(value) != length:
            raise self.error(key, f"must be a list of {length} positive numbers, got {_show(value)}")
        return tuple(float(item) for item in value)

    def numbers(self, key: str, shape: tuple[int, int], default: float) -> tuple[tuple[float, ...], ...]:
        """A table of so many rows and columns; one number stands for all of them."""
        value = self._get(key, default)
        rows, columns = shape
        if _is_finite(value):
            return ((float(value),) * columns,) * rows
        is_table = isinstance(value, list) and all(
            isinstance(row, list) and len(row) == columns and all(map(_is_finite, row)) for row in value
        )
        if not is_table or len(value) != rows:
            raise self.error(
                key, f"must be a number or {rows} lists of {columns} numbers, got {_show(value)}"
            )
        return tuple(tuple(map(float, row)) for row in value)

    def integers(self, key: str) -> tuple[int, ...]:
        """An integer or a list of them, none if absent; none may be negative."""
        value = self._get(key, [])
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in items):
            raise self.error(key, f"must be a token id or a list of token ids, got {_show(value)}")
        return tuple(items)

    def strings(self) -> dict[str, str]:
        """The whole object, all of whose values must be strings."""
        for key, value in self._values.items():
            if not isinstance(value, str):
                raise self.error(key, f"must be a string, got {_show(value)}")
        return self._values

    def section(self, key: str) -> "ConfigFields":
        """The fields of an object inside this one; an empty object if absent."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, f"must be a JSON object, got {_show(value)}")
        return ConfigFields(self.file, value, f"{self._prefix}{key}.")

    def error(self, key: str, problem: str) -> CheckpointError:
        """An error of one sentence about a field."""
        return CheckpointError(f"{self.file}: {self._prefix}{key} {problem}")

    def _get(self, key: str, default: Any) -> Any:
        value = self._values.get(key)
        if value is not None:
            return value
        if default is self._REQUIRED:
            raise self.error(key, "is missing: the checkpoint's configuration is incomplete")
        return default


def _is_number(value: Any) -> bool:
    return _is_finite(value) and abs(value) >= 1e-30


def _is_finite(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    # Within these bounds no formula overflows; an integer of JSON may even be too large for a float.
    return abs(value) <= 1e30


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
