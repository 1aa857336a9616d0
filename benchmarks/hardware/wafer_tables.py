"""Tables 2 to 8 of WaferLLM (arXiv 2502.04563) beside the model, as the page docs/wafer_tables.md.

python -m benchmarks.hardware.wafer_tables
"""

import argparse
import dataclasses
import os
from itertools import groupby
from pathlib import Path

from benchmarks.result_file import write_result
from lapidist.hardware.wafer.contradictions import Contradiction, found_contradictions
from lapidist.hardware.wafer.reproduction import Cell, not_modelled, reproduce

PAGE = Path(__file__).parents[2] / "docs" / "wafer_tables.md"
_TITLES = {
    2: "whole requests, output tokens per second",
    3: "prefill of 4096 tokens, tokens per second",
    4: "decode with 4096 tokens of context, tokens per second",
    5: "longest output by policy of the KV cache",
    6: "matrix-vector products",
    7: "energy of prefill, A100 over WSE-2",
    8: "energy of decode, A100 over WSE-2",
}
_HOW = """\
Each cell has the printed number and ours. What ours rests on:

- **predicted**: the constants were fitted to Tables 3 and 4 only, and to measured cycles of a WSE-3;
- **fitted**: to this very table; **held out**: every row predicted by a fit to the other half of the rows;
- **one constant fitted to the row**: predicted, plus the same number of milliseconds for each request of the model;
- **derived**: computed from other printed numbers, without a model.
"""


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    cells = reproduce()
    contradictions = found_contradictions(cells)
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(page(cells, contradictions), encoding="utf-8")
    os.replace(temporary, PAGE)
    result = {
        "cells": [{**dataclasses.asdict(cell), "error": cell.error} for cell in cells],
        "contradictions": [dataclasses.asdict(each) for each in contradictions],
        "not_modelled": not_modelled(),
    }
    print(f"written to {PAGE} and {write_result('wafer_tables', result)}")


def page(cells: list[Cell], contradictions: list[Contradiction]) -> str:
    parts = [
        "# WaferLLM's tables beside the model\n",
        "Written by `python -m benchmarks.hardware.wafer_tables`; `lapidist wafer reproduce` prints the same. "
        "[Wafers](wafer.md) says how the model works.\n",
        _HOW,
        "![Errors of every modelled cell](wafer_tables.png)\n",
    ]
    for number, own in groupby(cells, key=lambda cell: cell.table):
        parts.append(f"## Table {number}: {_TITLES[number]}\n")
        parts.append(table(list(own)))
    parts.append("## Where the paper contradicts itself\n")
    parts.append("Each sentence is computed from the tables and the device when this page is written.\n")
    parts.append("".join(f"- **{each.where}**: {each.says}. But {each.but}.\n" for each in contradictions))
    parts.append("## Not modelled\n")
    parts.append("".join(f"- {what}: {why}.\n" for what, why in not_modelled().items()))
    return "\n".join(parts)


def table(cells: list[Cell]) -> str:
    lines = ["| row | column | published | ours | error | ours is |", "|---|---|---:|---:|---:|---|"]
    lines += [
        f"| {cell.row} | {cell.column} | {cell.published:,.7g} {cell.unit} | {_like(cell)} "
        f"| {cell.error:+.1%} | {cell.how} |"
        for cell in cells
    ]
    return "\n".join(lines) + "\n"


def _like(cell: Cell) -> str:
    return f"{cell.ours:,.0f}" if cell.unit == "tokens" else f"{cell.ours:,.5g}"


if __name__ == "__main__":
    main()
