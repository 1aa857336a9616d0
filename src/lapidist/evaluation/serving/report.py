"""A replay's metrics for people (a table) and for programs (JSON)."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lapidist.evaluation.serving.benchmark import Benchmark, BenchmarkResult
from lapidist.workload.request_record import RequestRecord
from lapidist.workload.serving_metrics import Latency, Metrics

_ROWS = (
    ("first token (TTFT)", "ttft"),
    ("per output token (TPOT)", "tpot"),
    ("between tokens (ITL)", "inter_token"),
    ("end to end", "end_to_end"),
)


def print_report(metrics: Metrics, console: Console) -> None:
    """Latencies in milliseconds, then throughput, goodput and errors."""
    table = Table("latency, ms", *("mean", "P50", "P90", "P95", "P99", "max"), title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for label, attribute in _ROWS:
        latency: Latency | None = getattr(metrics, attribute)
        if latency is not None:
            values = (latency.mean, latency.p50, latency.p90, latency.p95, latency.p99, latency.max)
            table.add_row(label, *(f"{1000 * value:.1f}" for value in values))
    console.print(table)
    counts = f"{metrics.completed} completed, {metrics.failed} failed"
    if metrics.unfinished:
        counts += f", {metrics.unfinished} unfinished"
    console.print(f"requests      {counts} in {metrics.duration_seconds:.1f} s")
    console.print(
        f"throughput    {metrics.requests_per_second:.2f} requests/s, "
        f"{metrics.prompt_tokens_per_second:.1f} prompt tokens/s, "
        f"{metrics.output_tokens_per_second:.1f} output tokens/s"
    )
    if metrics.goodput_requests_per_second is not None and metrics.objective_met is not None:
        console.print(
            f"goodput       {metrics.goodput_requests_per_second:.2f} requests/s within the objective "
            f"({metrics.objective_met:.1%} of requests)"
        )
    for message, count in metrics.errors.items():
        console.print(f"error         {count} x {message}", markup=False, style="red")


def to_json(target: str, benchmark: Benchmark, result: BenchmarkResult) -> str:
    """Everything about a replay: what was asked, the metrics, and one entry per request; times in seconds."""
    content = {
        "target": target,
        "settings": asdict(benchmark),
        "left_out": result.left_out,
        "stopped": result.stopped,
        "metrics": asdict(result.metrics),
        "requests": [_request_dict(record) for record in result.records],
    }
    return json.dumps(content, indent=2)


def write_json(path: Path, report: str) -> None:
    """Write a report; the file appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(report + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _request_dict(record: RequestRecord) -> dict[str, Any]:
    row: dict[str, Any] = {"due_seconds": record.due_seconds, "prompt_tokens": record.prompt_tokens}
    if record.completed:
        row |= {
            "output_tokens": record.output_tokens,
            "ttft_seconds": record.first_token_seconds,
            "tpot_seconds": record.seconds_per_output_token,
            "end_to_end_seconds": record.end_to_end_seconds,
        }
    return row | ({"error": record.error} if record.error is not None else {})
