"""Write the model card and its pictures beside an export: `python -m recipes.tiny.card --help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from recipes.tiny.plots import heat_map, loss_curve
from recipes.tiny.run_state import read_log

ROOT = Path(__file__).parents[2]
TEMPLATE = Path(__file__).parent / "card_template.md"


def percent_table(corner: str, rows: dict[str, list[float]], lengths: list[int]) -> str:
    """A Markdown table of percentages, one column per length."""
    lines = [f"| {corner} | " + " | ".join(f"{length:,}" for length in lengths) + " |"]
    lines.append("|---" + "|---:" * len(lengths) + "|")
    lines += [
        f"| {label} | " + " | ".join(f"{v:.0%}" for v in values) + " |" for label, values in rows.items()
    ]
    return "\n".join(lines)


def quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def card(results: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """The model card as Markdown."""
    retrieval, text = results["retrieval"], results["text"]
    lengths = retrieval["lengths"]
    last = [record for record in records if "loss" in record][-1]
    grids = []
    for name, grid in retrieval["number"].items():
        rows = {f"{depth:.0%}": values for depth, values in zip(retrieval["depths"], grid, strict=True)}
        rows["**all**"] = np.mean(grid, axis=0).tolist()
        mean = retrieval["number_mean"][name]
        grids.append(f"**{name}** ({mean:.1%} over all cells)\n\n{percent_table('depth', rows, lengths)}")
    chat = "\n".join(f"- **{q}** {a.replace(chr(10), ' ')}" for q, a in results["samples"]["chat"].items())
    samples = "\n\n".join(quoted(f"**{p}**{c}") for p, c in results["samples"]["text"].items())
    bits = "\n".join(
        f"| {name} | {value['bits_per_byte']:.3f} | {value['bytes']:,} |" for name, value in text.items()
    )
    values = {
        "parameters": f"{results['parameters']:,}",
        "megabytes": f"{results['weights_bytes'] / 1e6:.1f}",
        "steps": f"{last['step']:,}",
        "steps_plain": str(last["step"]),
        "tokens": f"{last['tokens'] / 1e6:.1f}",
        "minutes": f"{last['seconds'] / 60:.0f}",
        "bits": bits,
        "grids": "\n\n".join(grids),
        "trials": str(retrieval["trials_per_cell"]),
        "styles": percent_table("style", retrieval["by_style_and_length"], lengths),
        "samples": samples,
        "chat": chat,
        "cpu": f"{results['machine']['cores']} cores of {results['machine']['cpu']}",
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    for name, value in values.items():
        page = page.replace(f"{{{name}}}", value)
    return page


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m recipes.tiny.card", description="Write the model card of an export."
    )
    parser.add_argument(
        "model", type=Path, nargs="?", default=ROOT / "src/lapidist/bundled/tiny", help="the export"
    )
    parser.add_argument(
        "--run", type=Path, default=ROOT / "recipes/tiny/runs/bundled", help="folder of the training run"
    )
    parser.add_argument(
        "--results", type=Path, default=ROOT / "benchmarks/results/tiny_model.json", help="from evaluate"
    )
    given = parser.parse_args(arguments)
    for path, remedy in [
        (given.results, "recipes.tiny.evaluate"),
        (given.run / "metrics.jsonl", "recipes.tiny.train"),
    ]:
        if not path.is_file():
            print(f"no {path}; run python -m {remedy} first", file=sys.stderr)
            return 2
    results, records = (
        json.loads(given.results.read_text(encoding="utf-8")),
        read_log(given.run / "metrics.jsonl"),
    )
    loss_curve(records, given.model / "loss_curve.png")
    heat_map(results["retrieval"], given.model / "retrieval.png")
    temporary = given.model / ".README.md.tmp"
    temporary.write_text(card(results, records), encoding="utf-8")
    os.replace(temporary, given.model / "README.md")
    print(f"wrote {given.model / 'README.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
