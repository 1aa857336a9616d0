"""``lapidist wafer calibrate``: cost constants from measured cycles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapidist.cli.wafer_options import AsJson, Constants, Picture, check_pictures

if TYPE_CHECKING:
    from lapidist.hardware.wafer.calibration import Accuracy, Calibration


def calibrate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="CSV files with the columns P,Mt,Kt,Nt,cycles (MeshGEMM) or P,Mt,Nt,G,cycles (MeshGEMV).",
            metavar="RUNS.CSV...",
        ),
    ],
    up_to: Annotated[
        int | None,
        typer.Option(help="Fit to meshes of up to so many cores a side; predict the larger ones.", min=1),
    ] = None,
    start: Constants = None,
    fix: Annotated[
        str,
        typer.Option(
            help="Constants that keep their start value, with commas between them.", metavar="NAME,..."
        ),
    ] = "",
    save: Annotated[
        Path | None, typer.Option(help="Write the constants as YAML, for --constants.", dir_okay=False)
    ] = None,
    plot: Picture = None,
    as_json: AsJson = False,
) -> None:
    """Fit cost constants to measured cycles; say how well they predict, and which of them the runs leave open.

    Example: lapidist wafer calibrate gemm.csv gemv.csv --up-to 144 --save constants.yaml
    """
    import json
    import warnings

    import numpy as np

    from lapidist.cli.wafer_plot import plot_calibration
    from lapidist.cli.wafer_report import print_calibration
    from lapidist.hardware.wafer.calibration import IdentifiabilityWarning, accuracy
    from lapidist.hardware.wafer.calibration import calibrate as fit_constants
    from lapidist.hardware.wafer.cost import CostModel
    from lapidist.hardware.wafer.cost_constants import read_constants
    from lapidist.hardware.wafer.first_guess import first_guess
    from lapidist.hardware.wafer.measured_cycles import read_kernel_runs

    check_pictures(plot)
    if save is not None and not save.parent.is_dir():
        raise ValueError(f"{save}: the folder {save.parent} does not exist")
    begun = first_guess()
    if start is not None:
        begun = CostModel(read_constants(start), begun.link_bytes_per_cycle)
    rows = [run for path in runs for run in read_kernel_runs(path)]
    inside = [run.measurement for run in rows if up_to is None or run.side <= up_to]
    outside = [run.measurement for run in rows if up_to is not None and run.side > up_to]
    if not inside:
        raise ValueError(
            f"no run has {up_to} cores a side or fewer; the smallest has {min(run.side for run in rows)}"
        )
    names = [name.strip() for name in fix.split(",") if name.strip()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)  # said below, once
        fit = fit_constants(inside, begun, fixed=names, source=", ".join(path.name for path in runs))
    held_out = accuracy(fit.model, outside) if outside else None
    if as_json:
        typer.echo(json.dumps(_to_json(fit, held_out), indent=2))
    else:
        print_calibration(fit, held_out)
    for sentence in fit.warnings:
        typer.secho(f"warning: {sentence}", fg="yellow", err=True)
    if save is not None:
        fit.model.constants.write(save, "Cost constants by lapidist wafer calibrate.")
        typer.echo(f"saved to {save}", err=as_json)
    if plot is not None:
        parts = [fit.accuracy, *([held_out] if held_out is not None else [])]
        predicted, measured = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("predicted", "measured")
        )
        plot_calibration(
            predicted, measured, np.arange(len(measured)) >= len(inside), plot, "cost model against runs"
        )


def _to_json(fit: "Calibration", held_out: "Accuracy | None") -> dict[str, object]:
    return {
        "constants": {
            name: {
                "cycles": getattr(fit.model.constants, name),
                "standard_error": None if fit.deviations[name] == float("inf") else fit.deviations[name],
            }
            for name in fit.fitted
        },
        "condition": fit.condition if fit.condition != float("inf") else None,
        "warnings": list(fit.warnings),
        "fit": _accuracy_json(fit.accuracy),
        "held_out": None if held_out is None else _accuracy_json(held_out),
    }


def _accuracy_json(found: "Accuracy") -> dict[str, object]:
    return {
        "runs": len(found.labels),
        "mape": found.mape,
        "largest": found.largest,
        "worst": found.worst,
        "bias": found.bias,
        "errors": {label: float(error) for label, error in zip(found.labels, found.errors, strict=True)},
    }
