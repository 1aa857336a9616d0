"""What each recipe costs in quality on the bundled model, and what each pass of QoQ contributes.

    python -m benchmarks.quantization_quality --text wikitext2_test.txt.gz
    python -m benchmarks.quantization_quality --text ... --recipes kv4,kv4-smooth --name quantization_quality_kv4

Writes perplexities, divergences from the float model and retrieval to ``results/quantization_quality.json``; with
``--recipes`` only of these, and without the passes. The text is for measuring only: calibration takes the text that
ships.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.result_file import write_result
from lapidist.bundled import TINY
from lapidist.evaluation.quantization import QuantizationReport, Settings, evaluate_quantization
from lapidist.models.calibration.text_files import read_texts
from lapidist.quantization.quantize import quantize
from lapidist.quantization.recipe import RECIPES, Recipe, load_recipe

COMPARED = (
    "qoq-g128",
    "qoq-g128-unclipped",
    "qoq-channel",
    "rtn-w4a8kv4-g128",
    "rtn-w4a8kv4-channel",
    "awq-w4a8kv4-g128",
    "awq-w4a16-g128",
    "gptq-w4a16-g128",
    "smoothquant-w8a8",
    "rtn-w8a8",
    "kv8",
    "kv4",
    "kv4-smooth",
)

# QoQ without one of its passes.
LEFT_OUT: dict[str, dict[str, Any]] = {
    "rotation": {"rotation": False},
    "value_rotation": {"value_rotation": False},
    "output_smoothing": {"output_smoothing": None},
    "attention_smoothing": {"attention_smoothing": None},
    "reordering": {"reordering": False},
    "gptq": {"weights": {"bits": 4, "group_size": 128, "clip": True}},
    "clipping": {"weights": {"bits": 4, "group_size": 128, "rounding": "gptq"}},
    "head of 8 bits": {"lm_head": {"bits": 16}},
}

# From 8-bit weights to QoQ, a step at a time (the ablation of QServe, arXiv 2405.04532).
_CHANNELS = {"weights": {"bits": 4}}
_CLIPPED = {"weights": {"bits": 4, "clip": True}}
_GROUPS = {"weights": {"bits": 4, "group_size": 128, "clip": True}}
PATH: tuple[tuple[str, dict[str, Any]], ...] = (
    ("W8A8", {"weights": {"bits": 8}, "activations": 8, "lm_head": {"bits": 8}}),
    ("4 bits per channel", _CHANNELS),
    ("rotation", {"rotation": True, "value_rotation": True}),
    ("clipping", _CLIPPED),
    ("KV4", {"kv_cache": 4}),
    ("attention_smoothing", {"attention_smoothing": {"alpha": 0.5}}),
    ("progressive groups", _GROUPS),
    ("reordering", {"reordering": True}),
    ("output_smoothing", {"output_smoothing": {"alpha": 0.3, "beta": 0.7}}),
    ("GPTQ", {"weights": {"bits": 4, "group_size": 128, "clip": True, "rounding": "gptq"}}),
)


def ablations() -> dict[str, Recipe]:
    """By their names in the result."""
    found = {}
    for name, change in LEFT_OUT.items():
        found[f"without {name}"] = Recipe(**{"name": f"without {name}"} | RECIPES["qoq-g128"] | change)
    fields: dict[str, Any] = {}
    for name, change in PATH:
        fields |= change
        found[f"+ {name}"] = Recipe(name=f"+ {name}", **fields)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, required=True, action="append")
    parser.add_argument("--max-tokens", type=int, default=100_000, help="the beginning of the text; 0 is all")
    parser.add_argument("--needle-trials", type=int, default=25)
    parser.add_argument(
        "--recipes", help="some of those compared, such as kv4,kv8 (default: all, and the passes)"
    )
    parser.add_argument("--name", default="quantization_quality", help="of the result file")
    options = parser.parse_args()
    texts = read_texts(options.text)
    compared = Settings(
        max_tokens=options.max_tokens or None, needle_trials=options.needle_trials, speed=False
    )
    # What a pass does to retrieval is below what so few needles show.
    ablated = replace(compared, needle_lengths=(256,), needle_trials=1)
    result: dict[str, Any] = {
        "text": [file.name for file in options.text],
        "max_tokens": options.max_tokens or None,
        "model": "bundled tiny",
    }
    names = COMPARED if options.recipes is None else options.recipes.split(",")
    result["recipes"] = _measure({name: load_recipe(name) for name in names}, texts, compared)
    print(write_result(options.name, result))  # already, for the rest takes as long again
    if options.recipes is None:
        result["ablations"] = _measure(ablations(), texts, ablated)[1:]
        write_result(options.name, result)


def _measure(recipes: dict[str, Recipe], texts: list[str], settings: Settings) -> list[dict[str, Any]]:
    """A row for the float model, then one for each recipe."""
    with tempfile.TemporaryDirectory() as folder:
        cut = []
        for number, (name, recipe) in enumerate(recipes.items(), 1):
            print(f"{number}/{len(recipes)} {name}", flush=True)
            cut.append(quantize(TINY, Path(folder) / f"{number}", recipe))
        report = evaluate_quantization(TINY, cut, texts, settings)
    rows = _rows(report, ["bfloat16", *recipes])
    for row in rows:
        print(
            f"{row['name']:28} {row['perplexity']:9.3f} {100 * row['rise']:+7.2f} % {row['needles']:.3f}",
            flush=True,
        )
    return rows


def _rows(report: QuantizationReport, names: list[str]) -> list[dict[str, Any]]:
    rows = []
    for name, row in zip(names, report.rows, strict=True):
        divergence = row.divergence
        rows.append(
            {
                "name": name,
                "perplexity": row.perplexity.perplexity,
                "rise": report.perplexity_rise(row),
                "bits_per_byte": row.perplexity.bits_per_byte,
                "kl_mean": divergence.mean if divergence else 0.0,
                "top1_agreement": divergence.top1_agreement if divergence else 1.0,
                "needles": row.needles.mean,
                "bits_per_weight": row.parts.bits_per_weight,
                "weight_bytes": row.parts.total,
            }
        )
    return rows


if __name__ == "__main__":
    main()
