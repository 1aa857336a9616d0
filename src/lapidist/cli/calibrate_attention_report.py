"""What ``lapidist calibrate-attention`` tells: tables for people, JSON for programs."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from lapidist.kernels.phi import MARGIN
from lapidist.models.calibration.calibrate import Calibration
from lapidist.models.calibration.context_buckets import COUNT, bucket_name
from lapidist.models.calibration.held_out import GOAL

_SHARES = (0.001, 0.01, 0.5, 0.99, 0.999)
_SHOWN_MISFITS = 10


def print_report(calibration: Calibration) -> None:
    """Row maxima by layer and by context, the choice, and how it did on held-out text."""
    console = Console()
    console.print(_layer_table(calibration))
    console.print(_context_table(calibration))
    for line in conclusion(calibration):
        console.print(
            line, style="green" if calibration.succeeded else "yellow", highlight=False, markup=False
        )


def conclusion(calibration: Calibration) -> list[str]:
    """What was chosen, or why nothing was, in sentences."""
    phi, held_out = calibration.choice.phi, calibration.held_out
    if phi is None or held_out is None:
        misfits = calibration.choice.misfits
        lines = [
            f"mode stays lazy: for {len(misfits)} of {calibration.statistics.lowest.numel()} heads no phi keeps all "
            f"row maxima {MARGIN:g} inside the safe band:"
        ]
        lines += [f"  {misfit}" for misfit in misfits[:_SHOWN_MISFITS]]
        if left := misfits[_SHOWN_MISFITS:]:
            lines.append(f"  and {len(left)} more; --json lists them")
        return lines
    met = held_out.rate <= GOAL
    lines = [
        describe_phi([value for layer in phi for value in layer]),
        f"on {int(held_out.tokens.sum())} held-out tokens {held_out.rate:.3%} of the rows were computed again; "
        f"goal of {GOAL:.1%} {'met' if met else 'missed'}",
    ]
    if not met:
        lines.append(
            "mode stays lazy: calibrate on more text (--tokens), or on text like the one you serve (--text)"
        )
    return lines


def describe_phi(values: list[float]) -> str:
    """In words, such as ``phi = 0 for all heads``."""
    low, high = min(values), max(values)
    if low == high:
        return f"phi = {low:g} for all heads"
    return f"phi from {low:g} to {high:g}, one for each head: no single one suits them all"


def to_json(model: str, calibration: Calibration, saved: Path | None) -> str:
    """Everything that was found out, for every layer and head."""
    statistics, held_out = calibration.statistics, calibration.held_out
    content: dict[str, Any] = {
        "model": model,
        "mode": calibration.softmax.mode.name.lower(),
        "succeeded": calibration.succeeded,
        "saved": None if saved is None else str(saved),
        "tokens": calibration.tokens,
        "context": calibration.context,
        "margin": MARGIN,
        "phi": calibration.choice.phi,
        "misfits": [vars(misfit) for misfit in calibration.choice.misfits],
        "bands": [[band.low, band.high] for band in calibration.bands],
        "slack": calibration.slack,
        "largest_value": statistics.largest_value.tolist(),
        "row_maxima": {
            "rows_per_head": statistics.rows_per_head,
            "lowest": statistics.lowest.tolist(),
            "quantiles": {str(share): statistics.quantile(share).tolist() for share in _SHARES},
            "highest": statistics.highest.tolist(),
            "by_context": {
                bucket_name(bucket): {
                    "lowest": statistics.lowest_by_context[..., bucket].tolist(),
                    "highest": statistics.highest_by_context[..., bucket].tolist(),
                }
                for bucket in _seen_buckets(calibration)
            },
        },
        "held_out": None,
    }
    if held_out is not None:
        content["held_out"] = {
            "goal": GOAL,
            "tokens": int(held_out.tokens.sum()),
            "rate": held_out.rate,
            "rate_by_layer": held_out.by_layer,
            "rate_by_context": {bucket_name(bucket): rate for bucket, rate in held_out.by_bucket.items()},
        }
    return json.dumps(content, indent=2)


def _layer_table(calibration: Calibration) -> Table:
    statistics, slack, held_out = calibration.statistics, calibration.slack, calibration.held_out
    table = _table("layer", "lowest", "median", "highest", "band", "phi", "slack", "again")
    columns = zip(*(_by_layer(statistics, part) for part in ("lowest", "median", "highest")), strict=True)
    for layer, (numbers, band) in enumerate(zip(columns, calibration.bands, strict=True)):
        phi = "-" if calibration.choice.phi is None else _span(calibration.choice.phi[layer])
        table.add_row(
            str(layer),
            *(f"{number:.1f}" for number in numbers),
            f"{band.low:.0f} to {band.high:.0f}",
            phi,
            "-" if slack is None else f"{min(slack[layer]):.1f}",
            "-" if held_out is None else f"{held_out.by_layer[layer]:.3%}",
        )
    table.title = "Row maxima of attention scores, over the heads of a layer"
    return table


def _context_table(calibration: Calibration) -> Table:
    statistics, held_out = calibration.statistics, calibration.held_out
    table = _table("context", "lowest", "highest", "again")
    rates = {} if held_out is None else held_out.by_bucket
    for bucket in _seen_buckets(calibration):
        table.add_row(
            bucket_name(bucket),
            f"{statistics.lowest_by_context[..., bucket].min().item():.1f}",
            f"{statistics.highest_by_context[..., bucket].max().item():.1f}",
            f"{rates[bucket]:.3%}" if bucket in rates else "-",
        )
    table.title = "The same by context"
    return table


def _table(*headers: str) -> Table:
    table = Table(*headers)
    for column in table.columns:
        column.justify = "right"
    return table


def _by_layer(statistics: Any, part: str) -> list[float]:
    found: dict[str, Tensor] = {
        "lowest": statistics.lowest.amin(1),
        "median": statistics.quantile(0.5).median(1).values,
        "highest": statistics.highest.amax(1),
    }
    return found[part].tolist()


def _seen_buckets(calibration: Calibration) -> list[int]:
    seen = calibration.statistics.lowest_by_context[0, 0].isfinite().tolist()
    return [bucket for bucket in range(COUNT) if seen[bucket]]


def _span(values: tuple[float, ...]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:.0f} to {high:.0f}"
