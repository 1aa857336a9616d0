"""What ``lapidist calibrate-filter`` tells: a table for people, JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lapidist.evaluation.filter_calibration import FilterCalibration
from lapidist.evaluation.filter_policy_search import Trial, policy_options


def print_report(calibration: FilterCalibration) -> None:
    """A row per layer, a column per share kept, and the conclusion."""
    console = Console()
    if calibration.trials:
        console.print(_search_table(calibration))
    table = Table(
        title=f"Answers from what each layer keeps of {_tokens(calibration)}, {calibration.prompts} prompts",
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


def _tokens(calibration: FilterCalibration) -> str:
    first, last = min(calibration.lengths), max(calibration.lengths)
    return f"{last} tokens" if first == last else f"{first} to {last} tokens"


def _search_table(calibration: FilterCalibration) -> Table:
    """The published policy, and each that was better than all before it."""
    best = calibration.trials[-1]
    table = Table(title=f"Policies: the best of {len(calibration.trials) - 1} at each step of the search")
    for name in ("kept", "layer", "answered", "nats per token", "policy"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    for trial in improvements(calibration.trials):
        found = trial.judgement
        table.add_row(
            f"{trial.keep:.0%}",
            str(trial.layer),
            f"{found.accuracy:.0%}",
            f"{-found.log_probability:.3f}",
            policy_options(trial.policy),
            style="bold green" if trial == best else None,
        )
    return table


def improvements(trials: Sequence[Trial]) -> list[Trial]:
    """Those that were better than all before them with the same share kept, the first one, and the last."""
    found: list[Trial] = []
    for trial in trials:
        same = found and found[-1].keep == trial.keep
        if not same or trial.judgement > found[-1].judgement:
            found.append(trial)
    return found if found[-1] == trials[-1] else [*found, trials[-1]]


def conclusion(calibration: FilterCalibration) -> str:
    """What was chosen, or why nothing was."""
    best = calibration.defaults
    wanted = f"{calibration.goal:.0%} of the accuracy with the whole prompt ({calibration.full:.0%})"
    if calibration.full == 0:
        return "the model answers nothing from the whole prompt: it has no retrieval to calibrate on"
    if best is None:
        found, layer = calibration.accuracy.max(), int(calibration.accuracy.max(axis=1).argmax())
        return f"no layer reaches {wanted}; layer {layer} comes nearest with {found:.0%}, and nothing was written"
    policy = "the published policy" if best.gemfilter is None else policy_options(best.gemfilter)
    gain = calibration.gain[best.layer, calibration.keeps.index(best.keep)]
    lines = [
        f"layer {best.layer} with {best.keep:.0%} kept reaches {wanted} and gains the most, {gain:.2f}x",
        f"gemfilter: {policy}",
    ]
    return "\n".join(
        lines if best.adaptive is None else [*lines, f"adaptive: {policy_options(best.adaptive)}"]
    )


def to_json(model: str, calibration: FilterCalibration, saved: Path | None) -> str:
    """All numbers; arrays are ``[layers][keeps]``."""
    best = calibration.defaults
    return json.dumps(
        {
            "model": model,
            "lengths": list(calibration.lengths),
            "prompts": calibration.prompts,
            "keeps": list(calibration.keeps),
            "goal": calibration.goal,
            "full_accuracy": calibration.full,
            "accuracy": calibration.accuracy.tolist(),
            "recall": calibration.recall.tolist(),
            "distance_tokens": calibration.distance.tolist(),
            "last_token_kept": calibration.ends_kept.tolist(),
            "forecast_gain": calibration.gain.tolist(),
            "layer": None if best is None else best.layer,
            "keep": None if best is None else best.keep,
            "policy": asdict(calibration.policy),
            "adaptive": None if calibration.adaptive is None else asdict(calibration.adaptive),
            "policies_tried": [asdict(trial) for trial in calibration.trials],
            "saved": None if saved is None else str(saved),
        },
        indent=2,
    )
