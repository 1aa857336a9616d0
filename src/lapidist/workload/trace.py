"""Request traces: what arrives when, how long its prompt is and how long its answer."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lapidist.workload.text_files import read_lines, write_atomically


@dataclass(frozen=True)
class TraceRequest:
    """One request of a trace.

    Parameters
    ----------
    arrival_seconds : since the trace began.
    prompt_tokens, output_tokens : lengths, at least 1.
    prompt : its text where the trace has it; otherwise a replay makes one of ``prompt_tokens`` tokens up.
    """

    arrival_seconds: float
    prompt_tokens: int
    output_tokens: int
    prompt: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.arrival_seconds < math.inf:
            raise ValueError(f"arrival_seconds must be a number from 0, got {self.arrival_seconds}")
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise ValueError(
                "prompt_tokens and output_tokens must be at least 1, "
                f"got {self.prompt_tokens} and {self.output_tokens}"
            )


Trace = tuple[TraceRequest, ...]


def scale_rate(trace: Sequence[TraceRequest], factor: float) -> Trace:
    """The same requests ``factor`` times as fast; raises ValueError unless ``factor`` is above 0."""
    if not 0 < factor < math.inf:
        raise ValueError(f"the rate factor must be a number above 0, got {factor}")
    return tuple(replace(request, arrival_seconds=request.arrival_seconds / factor) for request in trace)


def time_window(trace: Sequence[TraceRequest], start_seconds: float, end_seconds: float) -> Trace:
    """Requests that arrive in ``[start_seconds, end_seconds)``, with ``start_seconds`` as the new time 0."""
    return tuple(
        replace(request, arrival_seconds=request.arrival_seconds - start_seconds)
        for request in trace
        if start_seconds <= request.arrival_seconds < end_seconds
    )


def within_context(trace: Sequence[TraceRequest], context_tokens: int) -> Trace:
    """Requests whose prompt and answer together fit into ``context_tokens``."""
    return tuple(
        request for request in trace if request.prompt_tokens + request.output_tokens <= context_tokens
    )


def write_trace(path: Path, trace: Iterable[TraceRequest]) -> None:
    """Write one JSON object per request; the file appears complete or not at all."""
    write_atomically(path, (_to_json_line(request) for request in trace))


def read_trace(path: Path) -> Trace:
    """Read what :func:`write_trace` wrote; raises ValueError naming file and line for a bad row."""
    return tuple(
        _from_json_line(line, where=f"{path}, line {number}")
        for number, line in enumerate(read_lines(path), start=1)
        if line.strip()
    )


def _to_json_line(request: TraceRequest) -> str:
    return json.dumps({name: value for name, value in asdict(request).items() if value is not None})


def _from_json_line(line: str, where: str) -> TraceRequest:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a JSON object ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected a JSON object, got {type(row).__name__}")
    prompt = row.get("prompt")
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError(f"{where}: prompt must be text, got {type(prompt).__name__}")
    try:
        return TraceRequest(
            arrival_seconds=_number(row, "arrival_seconds"),
            prompt_tokens=_integer(row, "prompt_tokens"),
            output_tokens=_integer(row, "output_tokens"),
            prompt=prompt,
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _number(row: dict[str, Any], name: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return float(value)


def _integer(row: dict[str, Any], name: str) -> int:
    value = row.get(name)
    if type(value) is not int:
        raise ValueError(f"{name} must be an integer, got {value!r}")
    return value
