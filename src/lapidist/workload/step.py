"""One step of an engine: which sequences ran, with how many new tokens on how much context, and what filters did."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lapidist.workload.text_files import read_lines, write_atomically

_TIMES = ("duration_seconds", "start_seconds")


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


FilterWork = Literal["embedding", "layer", "keys", "queries", "raw_scores", "attention_scores"]


@dataclass(frozen=True)
class FilterStep:
    """A piece of a prompt filter's work, on one prompt and in one layer.

    Attributes
    ----------
    work : ``layer`` takes ``query_length`` tokens through all of ``layer``, ``kv_length`` tokens of context including
        them. ``keys`` and ``queries`` are these projections alone. ``attention_scores`` are the weights of
        ``query_length`` queries on ``kv_length`` keys, ``raw_scores`` the products of the queries' sum over heads.
        ``embedding`` looks the tokens up.
    layer : counted from 0.
    """

    work: FilterWork
    layer: int
    query_length: int
    kv_length: int

    def __post_init__(self) -> None:
        if self.work not in get_args(FilterWork):
            raise ValueError(
                f"the work of a filter is one of {', '.join(get_args(FilterWork))}, got {self.work!r:.80}"
            )
        if self.layer < 0:
            raise ValueError(f"layer must be at least 0, got {self.layer}")
        SequenceStep(self.query_length, self.kv_length)


@dataclass(frozen=True)
class Step:
    """One forward pass over a batch of sequences, and the share of prompt filters in the step.

    Parameters
    ----------
    sequences : prefill chunks and decodes alike.
    logit_rows : rows that the output head computes (one per sequence that samples).
    duration_seconds : how long the step took, when it has been run.
    start_seconds : when it began, on a clock that starts anywhere.
    filters : what prompt filters did, in order.
    restored : of each sequence whose keys and values a filter handed over, how many tokens of them were written to the
        KV cache. Such a sequence may sample though no token of it is among ``sequences``.
    """

    sequences: tuple[SequenceStep, ...]
    logit_rows: int
    duration_seconds: float | None = None
    start_seconds: float | None = None
    filters: tuple[FilterStep, ...] = ()
    restored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.sequences and not self.filters and not self.restored:
            raise ValueError("a step has at least one sequence, or the work of a filter")
        if any(tokens < 1 for tokens in self.restored):
            raise ValueError(f"restored tokens must be at least 1, got {min(self.restored)}")
        most = self.tokens + len(self.restored)
        if not 0 <= self.logit_rows <= most:
            raise ValueError(f"logit_rows must be from 0 to the step's {most} tokens, got {self.logit_rows}")
        for name in _TIMES:
            seconds = getattr(self, name)
            if seconds is not None and not 0 <= seconds < float("inf"):
                raise ValueError(f"{name} must be a number from 0, got {seconds}")

    @property
    def tokens(self) -> int:
        """New tokens of all sequences: the rows of every projection."""
        return sum(sequence.query_length for sequence in self.sequences)

    @property
    def has_prompt(self) -> bool:
        """Whether a sequence computes more than one token, which only prompts do."""
        return any(sequence.query_length > 1 for sequence in self.sequences)

    def to_json_line(self) -> str:
        """``{"sequences": [[query_length, kv_length], ...], "logit_rows": ...}`` without a line break.

        Filters add ``"filters": [[work, layer, query_length, kv_length], ...]`` and ``"restored": [tokens, ...]``.
        """
        row: dict[str, Any] = {
            "sequences": [[sequence.query_length, sequence.kv_length] for sequence in self.sequences],
            "logit_rows": self.logit_rows,
        }
        if self.filters:
            row["filters"] = [
                [each.work, each.layer, each.query_length, each.kv_length] for each in self.filters
            ]
        if self.restored:
            row["restored"] = list(self.restored)
        row |= {name: getattr(self, name) for name in _TIMES if getattr(self, name) is not None}
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
        times = {name: row.get(name) for name in _TIMES}
        for name, seconds in times.items():
            if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float)):
                raise ValueError(f"{where}: {name} must be a number, got {seconds!r}")
        if type(row.get("logit_rows")) is not int:
            raise ValueError(f"{where}: logit_rows must be an integer, got {row.get('logit_rows')!r}")
        filters, restored = row.get("filters", []), row.get("restored", [])
        if not isinstance(filters, list) or not isinstance(restored, list):
            raise ValueError(f'{where}: "filters" and "restored" must be lists')
        try:
            sequences = tuple(_sequence_step(pair) for pair in row["sequences"])
            work = tuple(map(_filter_step, filters))
            written = tuple(map(_whole, restored))
            return Step(sequences, row["logit_rows"], **times, filters=work, restored=written)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def _sequence_step(pair: object) -> SequenceStep:
    if not isinstance(pair, list) or len(pair) != 2 or any(type(length) is not int for length in pair):
        raise ValueError(f"a sequence is two integers [query_length, kv_length], got {pair!r}")
    return SequenceStep(*pair)


def _filter_step(given: object) -> FilterStep:
    if not isinstance(given, list) or len(given) != 4 or not isinstance(given[0], str):
        raise ValueError(f"the work of a filter is [work, layer, query_length, kv_length], got {given!r:.80}")
    layer, query_length, kv_length = map(_whole, given[1:])
    return FilterStep(given[0], layer, query_length, kv_length)  # type: ignore[arg-type]  # checked there


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"expected an integer, got {value!r:.80}")
    return value


def write_steps(path: Path, steps: Iterable[Step]) -> None:
    """Write a whole recording, one JSON line a step; the file appears complete or not at all."""
    write_atomically(path, (step.to_json_line() for step in steps))


def read_steps(path: Path) -> Iterator[Step]:
    """Steps of a recording in order; raises ValueError naming file and line for one that cannot be read."""
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            yield Step.from_json_line(line, where=f"{path}, line {number}")
