"""The comparison of checkpoints, its table, JSON and picture."""

import json
import math
import re
import shutil
from dataclasses import astuple, replace
from pathlib import Path

import pytest
from rich.console import Console

from lapidist.bundled import TINY
from lapidist.evaluation.perplexity import Perplexity, WindowLoss
from lapidist.evaluation.quantization import QuantizationReport, Settings, evaluate_quantization
from lapidist.evaluation.quantization_plot import plot_quantization
from lapidist.evaluation.quantization_report import print_report, to_json
from lapidist.models.quantization_config import QuantizationConfig
from tests.checkpoints import TEXT
from tests.evaluation.quality_checkpoints import rounded
from tests.quantized_checkpoints import CHANNELS, formats, quantize_at_random

SETTINGS = Settings(window=128, max_tokens=700, needle_lengths=(200,), needle_trials=1, speed=False)


@pytest.fixture(scope="module")
def report(llama_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizationReport:
    """A checkpoint against itself, against itself rounded, and against one of random integers with a 4-bit cache."""
    folder = tmp_path_factory.mktemp("candidates")
    same = shutil.copytree(llama_directory, folder / "same")
    coarse = rounded(llama_directory, folder / "coarse", bits=3)
    integers = folder / "integers"
    quantize_at_random(llama_directory, integers, formats(CHANNELS, activation_bits=8, kv_bits=4))
    return evaluate_quantization(llama_directory, [same, coarse, integers], TEXT * 3, SETTINGS)


def test_a_copy_costs_nothing_and_rounding_does(report: QuantizationReport) -> None:
    reference, same, coarse, integers = report.rows
    assert reference.divergence is None
    assert same.perplexity == reference.perplexity
    assert report.perplexity_rise(same) == 0
    assert same.divergence is not None
    assert (same.divergence.maximum, same.divergence.top1_agreement) == (0, 1)
    for row in (coarse, integers):
        assert row.divergence is not None
        assert row.divergence.mean > 0.01
        assert row.divergence.top1_agreement < 1
        assert report.perplexity_rise(row) != 0
    assert same.needles == reference.needles


def test_sizes_are_the_checkpoints(report: QuantizationReport) -> None:
    reference, same, _, integers = report.rows
    assert reference.parts == same.parts
    assert reference.parts.bits_per_weight == 32
    assert 4 < integers.parts.bits_per_weight < 5  # rows are short, and have a scale and a zero each
    assert integers.parts.kv_bytes_per_token == 2 * 2 * 2 * (16 // 2 + 3)
    assert integers.recipe == "random"
    assert [row.recipe for row in (reference, same)] == ["float32", "float32"]


def test_labels_tell_checkpoints_apart(report: QuantizationReport) -> None:
    first = report.reference.checkpoint.name
    assert report.labels() == [f"float32 ({first})", "float32 (same)", "float32 (coarse)", "random"]


def test_the_table_has_every_checkpoint_and_fits_into_80_columns(report: QuantizationReport) -> None:
    console = Console(width=80, record=True)
    print_report(report, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    for row in report.rows:
        assert sum(f"{row.perplexity.perplexity:.3f}" in line for line in lines) >= 1
        assert sum(f"{row.parts.kv_bytes_per_token:,}" in line for line in lines) >= 1


def test_json_has_every_number(report: QuantizationReport) -> None:
    found = json.loads(to_json(report))
    assert found["settings"]["window"] == 128
    assert found["text_tokens"] == 700
    for row, fields in zip(report.rows, found["checkpoints"], strict=True):
        assert fields["checkpoint"] == str(row.checkpoint)
        assert fields["perplexity"] == row.perplexity.perplexity
        assert fields["bits_per_byte"] == row.perplexity.bits_per_byte
        assert fields["weight_bytes"] == row.parts.total
        assert fields["needles"]["mean"] == row.needles.mean
        assert fields["tokens_per_second"] is None
    assert found["checkpoints"][0]["divergence_nats"] is None
    assert found["checkpoints"][2]["divergence_nats"]["mean"] == astuple(report.rows[2].divergence)[0]


def test_with_speed(llama_directory: Path) -> None:
    settings = replace(SETTINGS, speed=True, max_tokens=130)
    found = evaluate_quantization(llama_directory, [llama_directory], TEXT * 3, settings)
    console = Console(width=80, record=True)
    print_report(found, console)
    assert "prefill" in console.export_text()
    for fields in json.loads(to_json(found))["checkpoints"]:
        assert fields["tokens_per_second"]["decode"] > 0


def crowded(report: QuantizationReport, names: list[str]) -> QuantizationReport:
    """Rows that lie close together in the picture."""
    rows = [report.reference]
    for index, name in enumerate(names):
        config = replace(report.reference.parts.config, quantization=QuantizationConfig(name))
        loss = report.reference.perplexity.windows[0].mean + 0.001 * index
        rows.append(
            replace(
                report.rows[2],
                parts=replace(report.reference.parts, config=config),
                perplexity=Perplexity((WindowLoss(10 * loss, 10, 30, True),)),
            )
        )
    return replace(report, rows=tuple(rows))


def test_the_picture_has_a_label_for_each_point(report: QuantizationReport, tmp_path: Path) -> None:
    names = [f"recipe-{index}" for index in range(6)]
    file = tmp_path / "cost.svg"
    plot_quantization(crowded(report, names), file, "a title")
    svg = file.read_text()
    # Text is drawn as paths; what it says stands in a comment.
    placed = dict(re.findall(r"<!-- (\S+) -->\s*<g transform=\"translate\((\S+ \S+)\)", svg))
    assert {*names, "float32"} <= placed.keys()
    corners = sorted(tuple(map(float, placed[name].split())) for name in names)
    apart = [math.dist(a, b) for i, a in enumerate(corners) for b in corners[:i]]
    assert min(apart) > 7
    assert [path.name for path in tmp_path.iterdir()] == ["cost.svg"]


def test_checkpoints_of_different_vocabularies(llama_directory: Path) -> None:
    with pytest.raises(ValueError, match="the candidate one of 3072: compare checkpoints of the same model"):
        evaluate_quantization(llama_directory, [TINY], TEXT, SETTINGS)


def test_checkpoints_of_different_tokenizers(llama_directory: Path, tmp_path: Path) -> None:
    other = shutil.copytree(llama_directory, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-9]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="has another tokenizer than"):
        evaluate_quantization(llama_directory, [other], TEXT, SETTINGS)
