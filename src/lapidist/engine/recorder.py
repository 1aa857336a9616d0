"""Writes the steps that the engine ran, one JSON line each."""

from pathlib import Path

from lapidist.workload.step import Step


class StepRecorder:
    """Appends ``Step`` lines to a file, which is begun anew.

    Raises
    ------
    OSError : the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)

    def write(self, step: Step) -> None:
        self._file.write(step.to_json_line() + "\n")

    def close(self) -> None:
        self._file.close()
