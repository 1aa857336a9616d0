"""A plan for people (a table) and for programs (JSON)."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from lapidist.planner.pareto import pareto_front
from lapidist.planner.plan import Forecast, Refusal
from lapidist.workload.serving_metrics import Latency

_WIDEST = 1000


def on_front(forecasts: Sequence[Forecast]) -> set[int]:
    """Which forecasts no other one beats in price (or energy, without prices), TTFT and TPOT at once."""
    points = {index: point for index, each in enumerate(forecasts) if (point := _point(each)) is not None}
    indices = list(points)
    return {indices[found] for found in pareto_front(list(points.values()))}


def _point(forecast: Forecast) -> tuple[float, float, float] | None:
    metrics, price = forecast.metrics, forecast.dollars_per_million_output_tokens
    if metrics.ttft is None:
        return None
    cost = forecast.joules_per_output_token if price is None else price
    if math.isnan(cost):
        cost = 0.0
    return cost, metrics.ttft.p95, metrics.tpot.p95 if metrics.tpot is not None else 0.0


def print_plan(forecasts: Sequence[Forecast], refusals: Sequence[Refusal], console: Console) -> None:
    """One row per forecast, those on the Pareto front marked, then what cannot be and why."""
    if forecasts:
        table = _table(forecasts)
        # A narrow terminal wraps lines; leaving numbers out would be worse.
        width = Measurement.get(console, console.options.update(width=_WIDEST), table).maximum
        console.width = max(console.width, width)
        console.print(table)
        console.print("* no other option is better in price, TTFT and TPOT at once", style="dim")
        if not any(each.result.prefix_hit_tokens for each in forecasts):
            console.print(
                "no prompt begins like another here: a trace of lengths does not tell, --shared-prefix does",
                style="dim",
            )
    for refusal in refusals:
        console.print(f"{refusal.option.label}: {refusal.reason}", style="yellow", markup=False)
    for label, notes in _notes(forecasts).items():
        console.print(f"low confidence, {label}: {'; '.join(notes)}", style="yellow", markup=False)


def _table(forecasts: Sequence[Forecast]) -> Table:
    has_objective = any(each.metrics.objective_met is not None for each in forecasts)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for name in ("machine", "recipe"):
        table.add_column(name, no_wrap=True)
    headings = [
        "req/s",
        "TTFT ms\nP50/P95/P99",
        "TPOT ms\nP50/P95/P99",
        "TPOT P50\n90 % range",
        "E2E s\nP50/P95/P99",
        "tokens/s",
        *(["goodput\nreq/s"] if has_objective else []),
        "$ per 1M\ntokens out",
        "J per\ntoken",
        "max\nbatch",
        "busy",
    ]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    front = on_front(forecasts)
    for index, forecast in enumerate(forecasts):
        table.add_row("*" if index in front else "", *_cells(forecast, has_objective))
    return table


def _cells(forecast: Forecast, has_objective: bool) -> list[str]:
    option, metrics = forecast.option, forecast.metrics
    price = forecast.dollars_per_million_output_tokens
    goodput, interval = metrics.goodput_requests_per_second, forecast.tpot_interval_seconds
    return [
        option.devices,
        option.recipe.name,
        forecast.traffic.label,
        _percentiles(metrics.ttft, 1000),
        _percentiles(metrics.tpot, 1000),
        "-" if interval is None else "-".join(_number(1000 * edge) for edge in interval),
        _percentiles(metrics.end_to_end, 1),
        f"{metrics.output_tokens_per_second:,.0f}",
        *(["-" if goodput is None else f"{goodput:.3g}"] if has_objective else []),
        "-" if price is None else f"{price:.3g}",
        _number(forecast.joules_per_output_token),
        f"{forecast.max_batch:,}",
        f"{forecast.busy_share:.0%}",
    ]


def _percentiles(latency: Latency | None, factor: float) -> str:
    if latency is None:
        return "-"
    return " ".join(_number(factor * value) for value in (latency.p50, latency.p95, latency.p99))


def _number(value: float) -> str:
    """Three digits, no exponent.

    >>> _number(12345.6), _number(0.123456)
    ('12,346', '0.123')
    """
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _notes(forecasts: Sequence[Forecast]) -> dict[str, tuple[str, ...]]:
    return {each.option.label: each.low_confidence for each in forecasts if each.low_confidence}


def plan_to_json(
    model: str, settings: dict[str, Any], forecasts: Sequence[Forecast], refusals: Sequence[Refusal]
) -> str:
    """Everything, as one JSON object."""
    front = on_front(forecasts)
    return json.dumps(
        {
            "model": model,
            "settings": settings,
            "forecasts": [_row(each, index in front) for index, each in enumerate(forecasts)],
            "refused": [_option(each) | {"reason": each.reason} for each in refusals],
        },
        indent=2,
        allow_nan=False,
    )


def _option(each: Forecast | Refusal) -> dict[str, Any]:
    option = each.option
    return {
        "machine": option.machine.name,
        "recipe": option.recipe.name,
        "tensor_parallel": option.tensor_parallel,
        "expert_parallel": option.expert_parallel,
    }


def _row(forecast: Forecast, is_on_front: bool) -> dict[str, Any]:
    machine, fit, result = forecast.option.machine, forecast.fit, forecast.result
    return {
        **_option(forecast),
        "pareto": is_on_front,
        "requests_per_second_offered": forecast.traffic.rate,
        "concurrency": forecast.traffic.concurrency,
        "metrics": asdict(forecast.metrics),
        "tpot_p50_interval_seconds": forecast.tpot_interval_seconds,
        "dollars_per_million_output_tokens": forecast.dollars_per_million_output_tokens,
        "dollars_per_million_tokens": forecast.dollars_per_million_tokens,
        "dollars_per_hour_of_one_device": machine.dollars_per_hour,
        "price_source": machine.price_source,
        "joules_per_output_token": _or_none(forecast.joules_per_output_token),
        "average_watts": _or_none(forecast.average_watts),
        "memory": {
            **asdict(fit),
            "kv_capacity_tokens": fit.kv_capacity_tokens,
            "max_batch": forecast.max_batch,
        },
        "busy_share": forecast.busy_share,
        "seconds_by_part": forecast.seconds_by_part,
        "steps": result.steps,
        "peak_running": result.peak_running,
        "preemptions": result.preemptions,
        "prefix_hit_tokens": result.prefix_hit_tokens,
        "low_confidence": list(forecast.low_confidence),
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
