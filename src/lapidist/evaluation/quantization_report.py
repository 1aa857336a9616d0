"""What quantization cost, for people (a table) and for programs (JSON)."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from lapidist.evaluation.perplexity_report import perplexity_fields
from lapidist.evaluation.quantization import QuantizationReport, Row
from lapidist.evaluation.speed import CONCURRENT

_QUALITY = ("perplexity", "change", "KL, mean\nnats", "KL, 99 %\nnats", "same top\ntoken", "needles\nfound")
_SIZE = ("weights\nMB", "bits per\nweight", "KV bytes\n/ token")
_SPEED = ("prefill\ntokens/s", "decode\ntokens/s", f"{CONCURRENT} decode\ntokens/s")


def print_report(report: QuantizationReport, console: Console) -> None:
    """Quality, then size and speed, each with one line per checkpoint and the reference first."""
    with_speed = report.reference.speed is not None
    quality, cost = _table(_QUALITY), _table(_SIZE + _SPEED if with_speed else _SIZE)
    for label, row in zip(report.labels(), report.rows, strict=True):
        quality.add_row(label, *_quality_cells(report, row))
        cost.add_row(label, *_cost_cells(row))
    console.print(quality, cost)


def _table(columns: Sequence[str]) -> Table:
    """Fits into 80 columns; long names are folded."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("recipe", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _quality_cells(report: QuantizationReport, row: Row) -> list[str]:
    divergence = row.divergence
    compared = ["-"] * 4
    if divergence is not None:
        compared = [
            f"{report.perplexity_rise(row):+.2%}",
            f"{divergence.mean:.5f}",
            f"{divergence.percentile_99:.4f}",
            f"{divergence.top1_agreement:.2%}",
        ]
    return [f"{row.perplexity.perplexity:.3f}", *compared, f"{row.needles.mean:.1%}"]


def _cost_cells(row: Row) -> list[str]:
    parts = row.parts
    cells = [f"{parts.total / 1e6:,.2f}", f"{parts.bits_per_weight:.3f}", f"{parts.kv_bytes_per_token:,}"]
    if row.speed is not None:
        cells += [f"{each:,.1f}" for each in asdict(row.speed).values()]
    return cells


def to_json(report: QuantizationReport) -> str:
    """Every number, and what was asked."""
    content = {
        "settings": asdict(report.settings),
        "text_tokens": report.text_tokens,
        "checkpoints": [
            _fields(report, label, row) for label, row in zip(report.labels(), report.rows, strict=True)
        ],
    }
    return json.dumps(content, indent=2)


def _fields(report: QuantizationReport, label: str, row: Row) -> dict[str, Any]:
    return {
        "label": label,
        "checkpoint": str(row.checkpoint),
        "recipe": row.recipe,
        "weight_bytes": row.parts.total,
        "bits_per_weight": row.parts.bits_per_weight,
        "kv_bytes_per_token": row.parts.kv_bytes_per_token,
        **perplexity_fields(row.perplexity),
        "perplexity_rise": report.perplexity_rise(row),
        "divergence_nats": None if row.divergence is None else asdict(row.divergence),
        "needles": {"mean": row.needles.mean, **asdict(row.needles)},
        "tokens_per_second": None if row.speed is None else asdict(row.speed),
    }
