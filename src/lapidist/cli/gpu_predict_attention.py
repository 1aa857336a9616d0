"""``lapidist gpu predict-attention``: time, power and energy of attention kernels on a GPU."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

_SEVERAL = "one number or several, such as 1,16,256"


def predict_attention(
    gpu: Annotated[str, typer.Argument(help="Name of a GPU (lapidist gpu list) or a data sheet in YAML.")],
    batch: Annotated[str, typer.Argument(help=f"Sequences in the kernel: {_SEVERAL}.")],
    context: Annotated[str, typer.Argument(help="Tokens of each sequence, new ones included.")],
    query: Annotated[
        str, typer.Option(help="New tokens of each; 1 decodes, the context's number prefills.")
    ] = "1",
    heads: Annotated[int, typer.Option(help="Query heads of one rank.")] = 32,
    kv_heads: Annotated[int, typer.Option(help="KV heads of one rank.")] = 8,
    head_dim: Annotated[int, typer.Option(help="Size of a head.")] = 128,
    window: Annotated[int, typer.Option(help="Sliding window; 0 without.")] = 0,
    kv: Annotated[str, typer.Option(help="Cache type: bf16, fp8, int8 or int4.")] = "bf16",
    compute: Annotated[str, typer.Option(help="Arithmetic: bf16 or fp8.")] = "bf16",
    backend: Annotated[str | None, typer.Option(help="Whose kernels: TRTLLM, VLLM or SGLang.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the backend.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Forecast attention of BATCH equal sequences of CONTEXT tokens on GPU: time with a 90 % interval, power, energy.

    Example: lapidist gpu predict-attention h200 1,16,256 4096

    Example: lapidist gpu predict-attention l40s 4 2048 --query 2048 --heads 64
    """
    import json

    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from lapidist.hardware.gpu.attention_law import AttentionShapes
    from lapidist.hardware.gpu.attention_predictor import attention_predictor
    from lapidist.hardware.gpu.power_predictor import power_predictor

    sizes = [
        _numbers(text, name) for text, name in ((batch, "BATCH"), (query, "--query"), (context, "CONTEXT"))
    ]
    try:
        batches, queries, contexts = np.broadcast_arrays(*sizes)
    except ValueError:
        raise ValueError("BATCH, CONTEXT and --query: give one number or lists of the same length") from None
    kv_bytes, compute_bytes = _bytes(kv, _KV_BYTES, "--kv"), _bytes(compute, _COMPUTE_BYTES, "--compute")
    shapes = AttentionShapes.of(
        batches, queries, contexts, heads, kv_heads, head_dim, window, compute_bytes, kv_bytes
    )
    predictor = attention_predictor(gpu, backend, version)
    found = predictor.predict_shapes(shapes)
    power = power_predictor(predictor.sheet)
    rows, notes = [], list(found.notes)
    for row in range(len(batches)):
        drawn = power.attention(shapes.take(np.arange(len(batches)) == row), found.seconds[[row]])
        notes += [note for note in drawn.notes if note not in notes]
        rows.append(
            {
                "batch": int(batches[row]),
                "query_tokens": int(queries[row]),
                "context_tokens": int(contexts[row]),
                "seconds": float(found.seconds[row]),
                "low_seconds": float(found.low[row]),
                "high_seconds": float(found.high[row]),
                "low_confidence": bool(found.low_confidence[row]),
                "watts": float(drawn.watts[0]),
                "joules": float(drawn.joules[0]),
                "power_low_confidence": bool(drawn.low_confidence[0]),
            }
        )
    key = predictor.key
    if as_json:
        content = {"gpu": predictor.sheet.name, "measured": vars(key), "kernels": rows, "notes": notes}
        typer.echo(json.dumps(content, indent=2))
        return
    table = Table("batch", "query", "context", "µs", "90 % interval", "W", "mJ", "confidence")
    for each in rows:
        doubts = [
            name for name, low in (("time", "low_confidence"), ("power", "power_low_confidence")) if each[low]
        ]
        table.add_row(
            *(str(each[name]) for name in ("batch", "query_tokens", "context_tokens")),
            f"{each['seconds'] * 1e6:.1f}",
            f"{each['low_seconds'] * 1e6:.1f} to {each['high_seconds'] * 1e6:.1f}",
            f"{each['watts']:.0f}",
            f"{each['joules'] * 1e3:.3g}",
            f"low: {', '.join(doubts)}" if doubts else "",
        )
    console = Console()
    console.print(
        f"{predictor.sheet.title}, attention, from {key.gpu} {key.backend} {key.version}", highlight=False
    )
    console.print(table)
    for note in notes:
        typer.secho(note, fg="yellow", err=True)


# int8 and int4 caches carry an fp16 scale and an 8-bit zero point per head of 128.
_KV_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1 + 3 / 128, "int4": 0.5 + 3 / 128}
_COMPUTE_BYTES = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0}


def _bytes(name: str, known: dict[str, float], option: str) -> float:
    if name not in known:
        raise ValueError(f"{option} is {name!r}; known are {', '.join(known)}")
    return known[name]


def _numbers(text: str, name: str) -> "np.ndarray":
    import numpy as np

    try:
        return np.array([int(part) for part in text.split(",")])
    except ValueError:
        raise ValueError(f"{name} is {text!r}, not whole numbers") from None
