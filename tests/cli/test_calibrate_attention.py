"""``lapidist calibrate-attention`` as a user types it, on small checkpoints."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lapidist.bundled import TINY
from lapidist.kernels.softmax import SoftmaxMode
from lapidist.models.config import ModelConfig
from tests.attention_checkpoints import HEADS, write_shifted_qwen2, write_wide_llama
from tests.cli.command import Lapidist, command

FAST = ["--tokens", "600", "--context", "140"]


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    """Runs the ``lapidist`` command in this process."""
    return command(monkeypatch, capsys)


@pytest.fixture
def llama(llama_directory: Path, tmp_path: Path) -> Path:
    return shutil.copytree(llama_directory, tmp_path / "llama")


def section(directory: Path) -> Any:
    config = json.loads((directory / "config.json").read_text())
    return config.get("quantization_config", {}).get("attention_softmax")


def test_reports_and_writes_in_place(lapidist: Lapidist, llama: Path, tmp_path: Path) -> None:
    plot = tmp_path / "maxima.svg"
    result = lapidist("calibrate-attention", llama, *FAST, "--plot", plot)
    assert result.returncode == 0, result.stderr
    for word in (
        "lowest",
        "median",
        "highest",
        "slack",
        "1-128",
        "129-256",
        "phi = 0 for all heads",
        "goal of 0.5%",
    ):
        assert word in result.stdout
    assert f"saved to {llama / 'config.json'}" in result.stdout.replace("\n", "")
    assert section(llama) == {"mode": "unified", "phi": 0.0}
    assert plot.read_text().lstrip().startswith("<?xml")
    again = lapidist("calibrate-attention", llama, *FAST)
    assert again.returncode == 0
    assert section(llama) == {"mode": "unified", "phi": 0.0}


def test_dry_run_writes_nothing(lapidist: Lapidist, llama: Path, tmp_path: Path) -> None:
    before = (llama / "config.json").read_bytes()
    result = lapidist("calibrate-attention", llama, *FAST, "--dry-run", "--out", tmp_path / "copy")
    assert result.returncode == 0
    assert "saved" not in result.stdout + result.stderr
    assert (llama / "config.json").read_bytes() == before
    assert not (tmp_path / "copy").exists()


def test_json_stands_alone_and_has_every_head(lapidist: Lapidist, tmp_path: Path) -> None:
    shifts = [100.0, -100.0, 0.0, 50.0, -50.0, 150.0]
    directory = write_shifted_qwen2(tmp_path / "qwen2", shifts)
    text = tmp_path / "text.jsonl"
    text.write_text(json.dumps({"text": "the cat sat on the mat and the dog ran " * 60}) + "\n")
    result = lapidist("calibrate-attention", directory, *FAST, "--json", "--text", text)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["mode"] == "unified"
    assert found["saved"] == str(directory / "config.json")
    assert found["phi"] == section(directory)["phi"]
    maxima = found["row_maxima"]
    for table in (
        maxima["lowest"],
        maxima["highest"],
        maxima["quantiles"]["0.5"],
        found["slack"],
        found["phi"],
    ):
        assert [len(row) for row in table] == [HEADS, HEADS]
    assert list(maxima["by_context"]) == ["1-128", "129-256"]
    assert found["held_out"]["rate"] == 0
    assert len(found["held_out"]["rate_by_layer"]) == 2
    assert set(found["held_out"]["rate_by_context"]) <= {"1-128", "129-256"}
    config = ModelConfig.from_directory(directory).attention_softmax
    assert config is not None
    assert config.mode == SoftmaxMode.UNIFIED


def test_a_refusal_names_the_heads_and_changes_nothing(lapidist: Lapidist, tmp_path: Path) -> None:
    directory = write_wide_llama(tmp_path / "wide", layer=1, kv_head=1, factor=60)
    before = (directory / "config.json").read_bytes()
    plot = tmp_path / "maxima.png"
    result = lapidist("calibrate-attention", directory, *FAST, "--plot", plot)
    assert result.returncode == 1
    assert "mode stays lazy: for 2 of 8 heads" in result.stdout
    assert "layer 1 head 2: row maxima from" in result.stdout
    assert (directory / "config.json").read_bytes() == before
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert lapidist("calibrate-attention", directory, *FAST, "--out", tmp_path / "copy").returncode == 1
    assert not (tmp_path / "copy").exists()
    found = json.loads(lapidist("calibrate-attention", directory, *FAST, "--json").stdout)
    assert (found["mode"], found["phi"], found["held_out"], found["saved"]) == ("lazy", None, None, None)
    assert [(misfit["layer"], misfit["head"]) for misfit in found["misfits"]] == [(1, 2), (1, 3)]


def test_a_refusal_takes_back_an_earlier_calibration(lapidist: Lapidist, tmp_path: Path) -> None:
    directory = write_wide_llama(tmp_path / "wide", layer=0, kv_head=0, factor=60)
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "lapidist", "attention_softmax": {"mode": "unified"}}
    (directory / "config.json").write_text(json.dumps(config))
    assert lapidist("calibrate-attention", directory, *FAST).returncode == 1
    assert section(directory) == {"mode": "lazy"}


def test_the_bundled_model_stays_as_it_is(lapidist: Lapidist, tmp_path: Path) -> None:
    before = (TINY / "config.json").read_bytes()
    result = lapidist("calibrate-attention", "tiny", *FAST)
    assert result.returncode == 2
    assert "--out DIR" in result.stderr
    out = tmp_path / "tiny-calibrated"
    result = lapidist("calibrate-attention", "tiny", *FAST, "--out", out)
    assert result.returncode == 0, result.stderr
    assert section(out)["mode"] == "unified"
    assert (TINY / "config.json").read_bytes() == before
    result = lapidist("generate", out, "Once upon a time", "--max-tokens", 3, "--temperature", 0)
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no/such/place"], "no/such/place"),
        (["MODEL", "--tokens", "0"], "tokens must be at least 16, got 0"),
        (["MODEL", "--context", "100000"], "context must be from 2 to the model's 512 tokens"),
        (["MODEL", "--text", "no/such/text.txt"], "no/such/text.txt cannot be read"),
        (["MODEL", "--text", "MODEL/model.safetensors"], "is no UTF-8 text"),
        (["MODEL", "--text", "MODEL/empty.txt"], "the calibration text has 0 tokens"),
        (["MODEL", "--plot", "maxima.gif"], "written as"),
        (["MODEL", "--plot", "no/such/folder/maxima.png"], "no/such/folder"),
        (["MODEL", "--out", "MODEL"], "exists already"),
        (["MODEL", "--out", "no/such/folder/copy"], "no/such/folder"),
        (["MODEL", "--dtype", "float8"], "dtype must be"),
        (["MODEL", "--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(
    lapidist: Lapidist, llama: Path, args: list[str], message: str
) -> None:
    (llama / "empty.txt").touch()
    before = (llama / "config.json").read_bytes()
    result = lapidist("calibrate-attention", *[arg.replace("MODEL", str(llama)) for arg in args])
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (llama / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quantization method 'gptq'"),
        ({"quant_method": "lapidist", "attention_softmax": {"mode": "eager"}}, "attention_softmax.mode"),
        ("lapidist", "must be a JSON object"),
    ],
)
def test_a_config_that_cannot_be_used(
    lapidist: Lapidist, llama: Path, quantization: Any, message: str
) -> None:
    config = json.loads((llama / "config.json").read_text()) | {"quantization_config": quantization}
    (llama / "config.json").write_text(json.dumps(config))
    result = lapidist("calibrate-attention", llama, *FAST)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["serve"], ["generate"], ["chat"], ["bench", "serve"]])
def test_engines_take_the_mode(lapidist: Lapidist, command: list[str], llama: Path) -> None:
    assert "--attention-softmax" in lapidist(*command, "--help").stdout
    rest = {"serve": ["--port", "0"], "generate": ["the cat"]}.get(command[0], [])
    result = lapidist(*command, llama, *rest, "--attention-softmax", "fast")
    assert result.returncode == 2
    assert "attention_softmax must be auto, online, lazy, unified, got 'fast'" in result.stderr


def test_help(lapidist: Lapidist) -> None:
    result = lapidist("calibrate-attention", "--help")
    assert result.returncode == 0
    assert "Example" in result.stdout
