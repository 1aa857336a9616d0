"""One step of an engine: which sequences ran, with how many new tokens on how much context."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapidist.workload.text_files import read_lines, write_atomically


@dataclass(frozen=True)
class SequenceStep:
    """A sequence in a step: ``query_length`` new tokens, ``kv_length`` tokens of context including them."""

    query_length: int
    kv_length: int

    def __post_init__(self) -> None:
        if not 1 <= self.query_length <= self.kv_length:
            raise ValueError(
                f"query_length must be from 1 to kv_length ({self.kv_length}), got {self.query_length}"
            )


@dataclass(frozen=True)
class Step:
    """One forward pass over a batch of sequences.

    Parameters
    ----------
    sequences : prefill chunks and decodes alike.
    logit_rows : rows that the output head computes (one per sequence that samples).
    duration_seconds : how long the step took, when it has been run.
    """

    sequences: tuple[SequenceStep, ...]
    logit_rows: int
    duration_seconds: float | None = None

    def __post_init__(self) -> None:
        if not self.sequences:
            raise ValueError("a step has at least one sequence")
        if not 0 <= self.logit_rows <= self.tokens:
            raise ValueError(
                f"logit_rows must be from 0 to the step's {self.tokens} tokens, got {self.logit_rows}"
            )
        if self.duration_seconds is not None and not 0 <= self.duration_seconds < float("inf"):
            raise ValueError(f"duration_seconds must be a number from 0, got {self.duration_seconds}")

    @property
    def tokens(self) -> int:
        """New tokens of all sequences: the rows of every projection."""
        return sum(sequence.query_length for sequence in self.sequences)

    def to_json_line(self) -> str:
        """``{"sequences": [[query_length, kv_length], ...], "logit_rows": ...}`` without a line break."""
        row: dict[str, Any] = {
            "sequences": [[sequence.query_length, sequence.kv_length] for sequence in self.sequences],
            "logit_rows": self.logit_rows,
        }
        if self.duration_seconds is not None:
            row["duration_seconds"] = self.duration_seconds
        return json.dumps(row, separators=(",", ":"))

    @staticmethod
    def from_json_line(line: str, where: str = "step") -> "Step":
        """Inverse of :meth:`to_json_line`; errors start with ``where``, say ``steps.jsonl, line 3``."""
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not a JSON object ({error})") from None
        if not isinstance(row, dict) or not isinstance(row.get("sequences"), list):
            raise ValueError(
                f'{where}: expected an object with "sequences" as a list of [query_length, kv_length]'
            )
        duration = row.get("duration_seconds")
        if duration is not None and (isinstance(duration, bool) or not isinstance(duration, int | float)):
            raise ValueError(f"{where}: duration_seconds must be a number, got {duration!r}")
        if type(row.get("logit_rows")) is not int:
            raise ValueError(f"{where}: logit_rows must be an integer, got {row.get('logit_rows')!r}")
        try:
            sequences = tuple(_sequence_step(pair) for pair in row["sequences"])
            return Step(sequences, row["logit_rows"], duration)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def _sequence_step(pair: object) -> SequenceStep:
    if not isinstance(pair, list) or len(pair) != 2 or any(type(length) is not int for length in pair):
        raise ValueError(f"a sequence is two integers [query_length, kv_length], got {pair!r}")
    return SequenceStep(*pair)


def write_steps(path: Path, steps: Iterable[Step]) -> None:
    """Write a whole recording, one JSON line a step; the file appears complete or not at all."""
    write_atomically(path, (step.to_json_line() for step in steps))


def read_steps(path: Path) -> Iterator[Step]:
    """Steps of a recording in order; raises ValueError naming file and line for one that cannot be read."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield Step.from_json_line(line, where=f"{path}, line {number}")
