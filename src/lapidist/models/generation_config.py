"""How a checkpoint wants to be sampled: ``generation_config.json``."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lapidist.models.errors import CheckpointError
from lapidist.models.json_file import read_json_object


@dataclass(frozen=True)
class GenerationDefaults:
    """Sampling values that the checkpoint recommends; None where it says nothing.

    As in vLLM, a value counts whether or not ``do_sample`` is true: ``do_sample`` is for information.

    ``eos_token_ids`` are the end-of-text tokens of ``generation_config.json`` and ``config.json`` together.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_new_tokens: int | None = None
    do_sample: bool | None = None
    eos_token_ids: tuple[int, ...] = ()


def load_generation_defaults(path: str | Path) -> GenerationDefaults:
    """Read ``generation_config.json`` (which may be absent) and the end-of-text tokens of ``config.json``.

    Raises
    ------
    CheckpointError : a file is not JSON, or a value is of the wrong type or out of range.
    """
    directory = Path(path)
    file = directory / "generation_config.json"
    values = read_json_object(file) if file.exists() else {}
    eos = _eos_token_ids(values, file)
    config_file = directory / "config.json"
    if config_file.exists():
        eos |= _eos_token_ids(read_json_object(config_file), config_file)
    known = {field.name for field in fields(GenerationDefaults)} - {"eos_token_ids"}
    given = {key: value for key, value in values.items() if key in known and value is not None}
    for key, value in given.items():
        _check(key, value, file)
    return GenerationDefaults(**given, eos_token_ids=tuple(eos))


# Lowest and highest value, and whether it must be whole.
_RANGES = {
    "temperature": (0.0, math.inf, False),
    "top_k": (-1, math.inf, True),
    "top_p": (0.0, 1.0, False),
    "min_p": (0.0, 1.0, False),
    "repetition_penalty": (0.0, math.inf, False),
    "max_new_tokens": (1, math.inf, True),
}


def _check(key: str, value: Any, file: Path) -> None:
    if key == "do_sample":
        if not isinstance(value, bool):
            raise CheckpointError(f"{file}: do_sample must be true or false, got {value!r}")
        return
    low, high, whole = _RANGES[key]
    right_type = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right_type or not low <= value <= high or not math.isfinite(value):
        kind = "a whole number" if whole else "a number"
        limits = f"of at least {low}" if math.isinf(high) else f"from {low} to {high}"
        raise CheckpointError(f"{file}: {key} must be {kind} {limits}, got {value!r}")


def _eos_token_ids(values: dict[str, Any], file: Path) -> dict[int, None]:
    """The ids as the keys of a dict, which keeps their order and drops repetitions."""
    declared = values.get("eos_token_id")
    ids = declared if isinstance(declared, list) else [] if declared is None else [declared]
    for token_id in ids:
        if not isinstance(token_id, int) or isinstance(token_id, bool) or token_id < 0:
            raise CheckpointError(
                f"{file}: eos_token_id must be a token id or a list of them, got {declared!r}"
            )
    return dict.fromkeys(ids)
