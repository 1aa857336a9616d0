"""Outcomes in a folder, a file for each method and column, so that an evaluation that was stopped goes on."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lapidist.evaluation.long_context.case import Outcome
from lapidist.evaluation.long_context.methods import Method
from lapidist.workload.text_files import write_atomically


class OutcomeStore:
    """Files of outcomes.

    Parameters
    ----------
    folder : is made where it does not exist; None keeps nothing.
    settings : all that the outcomes depend on beside method and column. They stand in every file.

    Raises
    ------
    ValueError : the folder cannot be made.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any]) -> None:
        self._folder = folder
        self._settings = json.loads(json.dumps(settings))
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"{folder} cannot be made: {error.strerror}") from None

    def load(self, method: Method, column: str) -> list[Outcome] | None:
        """What an earlier run has found, if it has got so far.

        Raises
        ------
        ValueError : the file is of other settings, or none of ours.
        """
        file = self._file(method, column)
        if file is None or not file.exists():
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            outcomes = [
                Outcome(**(each | {"expected": tuple(each["expected"])})) for each in content["cases"]
            ]
            settings = {**content["settings"], "prompt_filter": content["prompt_filter"]}
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"{file} is no file of outcomes: remove it, or name another folder") from None
        for name, value in {**self._settings, "prompt_filter": method.describe()}.items():
            if settings.get(name) != value:
                raise ValueError(
                    f"{file} is of another run ({name} is {settings.get(name)!r:.80} there and {value!r:.80} now): "
                    "name another folder"
                )
        return outcomes

    def save(self, method: Method, column: str, outcomes: Sequence[Outcome]) -> None:
        """
        Raises
        ------
        ValueError : the file cannot be written.
        """
        file = self._file(method, column)
        if file is not None:
            content = {
                "settings": self._settings,
                "method": method.label,
                "prompt_filter": method.describe(),
                "column": column,
                "cases": [asdict(outcome) for outcome in outcomes],
            }
            write_atomically(file, [json.dumps(content, indent=1, ensure_ascii=False)])

    def _file(self, method: Method, column: str) -> Path | None:
        if self._folder is None:
            return None
        name = re.sub(r"[^A-Za-z0-9._=-]+", "_", method.label)
        return self._folder / f"{name}.{column}.json"


def fingerprint(model: Path) -> str:
    """Tells checkpoints apart by names, sizes and times of their files, so that results of two are not mixed."""
    files = sorted([*model.glob("*.safetensors"), *model.glob("*.bin"), *model.glob("*.json")])
    described = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(described).encode()).hexdigest()[:16]
