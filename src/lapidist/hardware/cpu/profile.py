"""What was measured of one model's operators on one machine: the file that ``lapidist cpu measure`` writes."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lapidist.hardware.cpu.operator_key import OperatorKey
from lapidist.workload.text_files import read_lines, write_atomically

SCHEMA = 3


@dataclass(frozen=True)
class OperatorPoint:
    """Seconds of one run of an operator on ``rows`` rows, with the work that one run is."""

    key: OperatorKey
    rows: int
    flops: int
    bytes: int
    seconds: float


@dataclass(frozen=True)
class AttentionPoint:
    """Seconds of one call: the attention of one layer over ``batch`` sequences alike, and their cache's update.

    ``visible`` are the tokens that a sequence's last query sees.
    """

    batch: int
    query_length: int
    visible: int
    seconds: float


@dataclass(frozen=True)
class Overhead:
    """What the engine makes of a step's operators: scheduling, building the batch, sampling, streaming.

    Attributes
    ----------
    step, sequence, token : seconds of every step, and of each sequence and token in it.
    slowdown : of the operators in the engine over the same run one by one.
    request : seconds from a request's arrival to its first step, and from a token to its reader, once per request.
    cold : seconds that a step loses where it reads so much context that nothing else is left in the caches.
    arrival, arrival_token : seconds that a request takes from the steps under way when it comes, and for each token of
        its prompt.
    wake : seconds by which the first token is later after a pause.
    """

    step: float
    sequence: float
    token: float
    slowdown: float = 1.0
    request: float = 0.0
    cold: float = 0.0
    arrival: float = 0.0
    arrival_token: float = 0.0
    wake: float = 0.0


NO_OVERHEAD = Overhead(0.0, 0.0, 0.0)
_OVERHEADS = tuple(each.name for each in fields(Overhead))


@dataclass(frozen=True)
class CPUProfile:
    """Measurements of one model in one recipe.

    Attributes
    ----------
    machine : processor, instruction set and threads.
    model : what was measured, for people; ``shape`` and ``recipe`` are what a plan is compared with.
    watts : of the whole processor under load; None where nobody could say.
    memory_bytes : of the machine.
    others_cores : that other processes kept busy meanwhile, on average.
    cache_bytes : of the last level.
    """

    machine: str
    model: str
    shape: dict[str, int]
    recipe: str
    operators: tuple[OperatorPoint, ...]
    attention: tuple[AttentionPoint, ...]
    overhead: Overhead
    memory_bytes: int
    watts: float | None = None
    others_cores: float = 0.0
    cache_bytes: int = 32 << 20

    def __post_init__(self) -> None:
        if not self.operators or not self.attention:
            raise ValueError("a CPU profile holds at least one operator and one attention")


def write_profile(profile: CPUProfile, path: Path) -> None:
    """Write the profile as JSON; it appears whole or not at all."""
    content = {"schema": SCHEMA, **asdict(profile)}
    write_atomically(path, json.dumps(content, indent=1).splitlines())


def read_profile(path: Path) -> CPUProfile:
    """Read what :func:`write_profile` wrote.

    Raises
    ------
    ValueError : the file cannot be read or is no profile; the sentence names file and field.
    """
    text = "".join(read_lines(path))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"{path}: not a CPU profile of schema {SCHEMA}; run lapidist cpu measure again")
    try:
        return _profile(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: not a CPU profile ({reason}); run lapidist cpu measure again") from None


def _profile(content: dict[str, Any]) -> CPUProfile:
    watts = content["watts"]
    return CPUProfile(
        machine=_text(content["machine"]),
        model=_text(content["model"]),
        shape={_text(name): _count(value) for name, value in content["shape"].items()},
        recipe=_text(content["recipe"]),
        operators=tuple(
            OperatorPoint(
                OperatorKey(
                    _text(row["key"]["kind"]),
                    _count(row["key"]["columns"]),
                    _count(row["key"]["inputs"]),
                    _text(row["key"]["formats"]),
                ),
                _count(row["rows"], least=1),
                _count(row["flops"]),
                _count(row["bytes"], least=1),
                _seconds(row["seconds"], above=0.0),
            )
            for row in content["operators"]
        ),
        attention=tuple(
            AttentionPoint(
                _count(row["batch"], least=1),
                _count(row["query_length"], least=1),
                _count(row["visible"], least=1),
                _seconds(row["seconds"], above=0.0),
            )
            for row in content["attention"]
        ),
        overhead=Overhead(*(_seconds(content["overhead"][name]) for name in _OVERHEADS)),
        memory_bytes=_count(content["memory_bytes"], least=1),
        watts=None if watts is None else _seconds(watts),
        others_cores=_seconds(content["others_cores"]),
        cache_bytes=_count(content["cache_bytes"], least=1),
    )


def _require(value: Any, kind: type | tuple[type, ...], valid: Callable[[Any], bool], what: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, kind) or not valid(value):
        raise ValueError(f"expected {what}, got {value!r}")
    return value


def _text(value: Any) -> str:
    return str(_require(value, str, bool, "a text"))


def _count(value: Any, least: int = 0) -> int:
    return int(_require(value, int, lambda number: number >= least, f"a whole number from {least}"))


def _seconds(value: Any, above: float = -1.0) -> float:
    return float(
        _require(
            value,
            (int, float),
            lambda number: math.isfinite(number) and number >= 0 and number > above,
            "a number of seconds",
        )
    )
