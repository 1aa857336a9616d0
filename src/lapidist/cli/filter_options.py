"""Options of commands that filter prompts."""

import json
from typing import Annotated, Any

import typer

PromptFilter = Annotated[
    str | None,
    typer.Option(
        help="Run a long prompt at a fraction of its cost: gemfilter, adaptive, snapkv, h2o, streamingllm or "
        'fastkv; or a JSON object with its options, {"method": "gemfilter", "window": 8}.',
        metavar="METHOD",
    ),
]
FilterKeep = Annotated[
    str | None,
    typer.Option(
        help="Tokens that the filter keeps: 1024, or a share, 0.1 or 10%. (default: what calibrate-filter found, else "
        "1024)",
        metavar="N",
    ),
]
FilterLayer = Annotated[
    int | None,
    typer.Option(
        help="Layer that chooses, counted from 0. (default: what calibrate-filter found, else by the depth)",
        min=0,
    ),
]


def filter_object(
    method: str | None, keep: str | None, layer: int | None, explain: bool = False
) -> dict[str, Any] | None:
    """The options as ``parse_prompt_filter`` reads them; None without a method.

    Raises
    ------
    ValueError : a value cannot be read, or options are given without a method.
    """
    if method is None:
        if keep is not None or layer is not None or explain:
            raise ValueError(
                "options of a filter need --prompt-filter METHOD, for instance --prompt-filter gemfilter"
            )
        return None
    found = _object(method)
    if keep is not None:
        found["keep"] = parse_keep(keep)
    if layer is not None:
        found["layer"] = layer
    if explain:
        found["explain"] = True
    return found


def parse_keep(text: str) -> int | float:
    """``1024`` is tokens; ``0.1`` and ``10%`` are shares.

    Raises
    ------
    ValueError : it is none of these.
    """
    try:
        if text.endswith("%"):
            return float(text[:-1]) / 100
        return int(text) if text.isdigit() else float(text)
    except ValueError:
        raise ValueError(f"--filter-keep takes tokens (1024) or a share (0.1, 10%), got {text!r}") from None


def _object(method: str) -> dict[str, Any]:
    if not method.lstrip().startswith("{"):
        return {"method": method}
    try:
        found: dict[str, Any] = json.loads(method)
    except ValueError as error:
        raise ValueError(f"--prompt-filter is not valid JSON ({error})") from None
    return found
