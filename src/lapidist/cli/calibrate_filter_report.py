"""What ``lapidist calibrate-filter`` tells: a table for people, JSON for programs."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lapidist.evaluation.filter_calibration import FilterCalibration


def print_report(calibration: FilterCalibration) -> None:
    """A row per layer, a column per share kept, and the conclusion."""
    console = Console()
    table = Table(
        title=f"Answers from what each layer keeps of {calibration.length} tokens, {calibration.trials} prompts",
        caption=f"answered from the whole prompt: {calibration.full:.0%}. In brackets: part of the hidden fact kept. "
        "Distance to the fact and last token: of the smallest share",
    )
    table.add_column("layer", justify="right")
    for keep in calibration.keeps:
        table.add_column(f"{keep:.0%} kept", justify="right")
    table.add_column("distance in tokens", justify="right")
    table.add_column("last token kept", justify="right")
    best = calibration.defaults
    columns = calibration.accuracy, calibration.recall, calibration.distance, calibration.ends_kept
    for layer, (row, recalls, distances, ends) in enumerate(zip(*columns, strict=True)):
        cells = [f"{found:.0%} ({recall:.0%})" for found, recall in zip(row, recalls, strict=True)]
        style = "bold green" if best is not None and best.layer == layer else None
        table.add_row(str(layer), *cells, f"{distances[0]:.0f}", f"{ends[0]:.0%}", style=style)
    console.print(table)
    style = "yellow" if best is None else "green"
    console.print(conclusion(calibration), style=style, highlight=False, markup=False)


def conclusion(calibration: FilterCalibration) -> str:
    """What was chosen, or why nothing was."""
    best = calibration.defaults
    wanted = f"{calibration.goal:.0%} of the accuracy with the whole prompt ({calibration.full:.0%})"
    if calibration.full == 0:
        return "the model answers nothing from the whole prompt: it has no retrieval to calibrate on"
    if best is None:
        found, layer = calibration.accuracy.max(), int(calibration.accuracy.max(axis=1).argmax())
        return f"no layer reaches {wanted}; layer {layer} comes nearest with {found:.0%}, and nothing was written"
    return f"layer {best.layer} with {best.keep:.0%} kept reaches {wanted}"


def to_json(model: str, calibration: FilterCalibration, saved: Path | None) -> str:
    """All numbers; arrays are ``[layers][keeps]``."""
    best = calibration.defaults
    return json.dumps(
        {
            "model": model,
            "length": calibration.length,
            "prompts": calibration.trials,
            "keeps": list(calibration.keeps),
            "goal": calibration.goal,
            "full_accuracy": calibration.full,
            "accuracy": calibration.accuracy.tolist(),
            "recall": calibration.recall.tolist(),
            "distance_tokens": calibration.distance.tolist(),
            "last_token_kept": calibration.ends_kept.tolist(),
            "layer": None if best is None else best.layer,
            "keep": None if best is None else best.keep,
            "saved": None if saved is None else str(saved),
        },
        indent=2,
    )
