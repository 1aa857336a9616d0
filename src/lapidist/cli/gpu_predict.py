"""``lapidist gpu predict``: the time of GEMMs on a GPU."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np

    from lapidist.hardware.gpu.gemm_predictor import GemmPredictor

_SIZES = "one number or several, such as 1,16,256"


def predict(
    gpu: Annotated[str, typer.Argument(help="Name of a GPU (lapidist gpu list) or a data sheet in YAML.")],
    m: Annotated[str, typer.Argument(help=f"Rows of the input (tokens): {_SIZES}.")],
    n: Annotated[str, typer.Argument(help="Output channels.")],
    k: Annotated[str, typer.Argument(help="Input channels.")],
    dtype: Annotated[str, typer.Option(help="bf16, fp8, nvfp4, int4_wo, sq and others.")] = "bf16",
    backend: Annotated[str | None, typer.Option(help="Whose kernels: TRTLLM, VLLM or SGLang.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the backend.")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Models that lapidist gpu fit wrote. (default: the bundled ones)")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="A few measured GEMMs of this GPU and format, Parquet or CSV.", dir_okay=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Forecast the time of output [M, N] = input [M, K] @ weight [N, K].T on GPU, with a 90 % interval.

    Example: lapidist gpu predict h200 1,16,256,4096 4096 4096

    Example: lapidist gpu predict rtx-4090 1,64 8192 8192 --calibrate my-gpu/gemm.parquet
    """
    import json

    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from lapidist.hardware.gpu.gemm_predictor import gemm_predictor
    from lapidist.hardware.gpu.gemm_store import BUNDLED

    try:
        sizes = np.broadcast_arrays(_sizes(m, "M"), _sizes(n, "N"), _sizes(k, "K"))
    except ValueError as error:
        raise ValueError(f"sizes: {error}; give one number or lists of the same length") from None
    predictor = gemm_predictor(gpu, dtype, backend, version, models or BUNDLED)
    if calibrate is not None:
        predictor = _calibrated(predictor, calibrate, gpu, dtype)
    found = predictor.predict(*sizes)
    teraflops = 2e-12 * np.prod([size.astype(float) for size in sizes], axis=0) / found.seconds
    columns = (*sizes, found.seconds, found.low, found.high, found.low_confidence, teraflops)
    names = ("m", "n", "k", "seconds", "low_seconds", "high_seconds", "low_confidence", "tflops")
    rows = [dict(zip(names, (x.item() for x in row), strict=True)) for row in zip(*columns, strict=True)]
    answered_by = {"gpu": predictor.measured_on, "backend": predictor.backend, "version": predictor.version}
    if as_json:
        content = {"gpu": predictor.sheet.name, "dtype": dtype, "measured": answered_by, "gemms": rows}
        typer.echo(json.dumps({**content, "notes": found.notes}, indent=2))
        return
    table = Table(
        "m",
        "n",
        "k",
        "µs",
        "90 % interval",
        "TFLOP/s",
        "of peak",
        "confidence",
        box=None,
        padding=(0, 2, 0, 0),
    )
    peak = predictor.sheet.operations_per_second(predictor.format.compute) / 1e12
    for row in rows:
        table.add_row(
            *(str(row[name]) for name in ("m", "n", "k")),
            f"{row['seconds'] * 1e6:.2f}",
            f"{row['low_seconds'] * 1e6:.2f} to {row['high_seconds'] * 1e6:.2f}",
            *(f"{row['tflops']:.3g}", f"{row['tflops'] / peak:.1%}", "low" if row["low_confidence"] else ""),
        )
    console = Console()
    behind = " ".join(part for part in answered_by.values() if part) or "no measurements"
    console.print(f"{predictor.sheet.title}, {dtype}, from {behind}", highlight=False)
    console.print(table)
    for note in found.notes:
        typer.secho(note, fg="yellow", err=True)


def _calibrated(predictor: "GemmPredictor", path: Path, gpu: str, dtype: str) -> "GemmPredictor":
    from lapidist.hardware.gpu.measurements import read_gemm_table, select

    rows = read_gemm_table(path, system=gpu, backend="unknown", version="unknown", dtype=dtype)
    rows = select(rows, dtype=predictor.format.name)
    return predictor.calibrated(*(rows[name].to_numpy() for name in ("m", "n", "k", "seconds")))


def _sizes(text: str, name: str) -> "np.ndarray":
    import numpy as np

    try:
        return np.array([int(part) for part in text.split(",")])
    except ValueError:
        raise ValueError(f"{name} is {text!r}, not whole numbers") from None
