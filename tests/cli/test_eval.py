"""``lapidist eval`` as a user types it, on small checkpoints."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from lapidist.evaluation.perplexity import measure_perplexity
from lapidist.evaluation.text import tokenize
from lapidist.evaluation.windows import cut
from lapidist.models.load import load_decoder
from lapidist.models.tokenizer import Tokenizer
from tests.checkpoints import TEXT
from tests.cli.command import Lapidist, command
from tests.evaluation.quality_checkpoints import rounded

FAST = ["--max-tokens", "300", "--needle-lengths", "150", "--needle-trials", "1", "--skip-speed"]


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    """Runs the ``lapidist`` command in this process."""
    return command(monkeypatch, capsys)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    file = tmp_path / "text.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(json.dumps({"text": part}) for part in TEXT * 3).encode()))
    return file


@pytest.fixture
def candidate(llama_directory: Path, tmp_path: Path) -> Path:
    return rounded(llama_directory, tmp_path / "rounded", bits=4)


def test_perplexity(lapidist: Lapidist, llama_directory: Path, text: Path) -> None:
    tokenized = tokenize(Tokenizer.from_directory(llama_directory), TEXT * 3, 320, 400)
    expected = measure_perplexity(load_decoder(llama_directory), cut(tokenized, 512, 128))
    options = ["--text", text, "--window", "128", "--max-tokens", "400"]
    result = lapidist("eval", "perplexity", llama_directory, *options)
    assert result.returncode == 0, result.stderr
    assert f"{expected.perplexity:.4f}" in result.stdout
    assert f"{expected.bits_per_byte:.4f}" in result.stdout
    assert "mean over 3 full windows of 128 tokens" in result.stdout
    found = json.loads(lapidist("eval", "perplexity", llama_directory, *options, "--json").stdout)
    assert found["perplexity"] == expected.perplexity
    assert found["token_perplexity"] == expected.token_perplexity
    assert found["bits_per_byte"] == expected.bits_per_byte
    assert found["predicted_tokens"] == expected.predictions == 400 - 4
    assert (found["windows"], found["full_windows"], found["text_tokens"]) == (4, 3, 400)


def test_quantization(
    lapidist: Lapidist, llama_directory: Path, candidate: Path, text: Path, tmp_path: Path
) -> None:
    result_file, plot = tmp_path / "result.json", tmp_path / "cost.svg"
    outputs = ["--json", result_file, "--plot", plot]
    result = lapidist("eval", "quantization", llama_directory, candidate, "--text", text, *FAST, *outputs)
    assert result.returncode == 0, result.stderr
    for word in ("perplexity", "KL, mean", "same top", "needles", "KV bytes", "rounded"):
        assert word in result.stdout
    found = json.loads(result_file.read_text())
    assert [Path(row["checkpoint"]) for row in found["checkpoints"]] == [llama_directory, candidate]
    assert found["checkpoints"][1]["divergence_nats"]["mean"] > 0
    assert plot.read_text().lstrip().startswith("<?xml")


def test_quantization_as_json_alone(
    lapidist: Lapidist, llama_directory: Path, candidate: Path, text: Path
) -> None:
    result = lapidist(
        "eval", "quantization", llama_directory, candidate, "--text", text, *FAST, "--json", "-"
    )
    assert len(json.loads(result.stdout)["checkpoints"]) == 2
    assert "perplexity" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name a text with --text FILE"),
        (["--text", "absent.txt"], "absent.txt cannot be read: No such file or directory"),
        (["--text", "empty.txt"], "the text has fewer than 2 tokens: there is nothing to predict"),
        (["--text", "letter.txt"], "the text has fewer than 2 tokens: there is nothing to predict"),
        (
            ["--text", "text.jsonl.gz", "--window", "513"],
            "window must be from 2 to the model's 512 tokens, got 513",
        ),
        (["--text", "text.jsonl.gz", "--window", "9", "--stride", "10"], "stride must be from 1 to the 9"),
        (["--text", "text.jsonl.gz", "--bos"], "sets no beginning-of-text token"),
        (["--text", "text.jsonl.gz", "--dtype", "int8"], "dtype must be auto"),
        (["--text", "text.jsonl.gz", "--device", "tpu"], "device must be cpu"),
    ],
)
@pytest.mark.parametrize("evaluation", ["perplexity", "quantization"])
def test_what_cannot_be_evaluated(
    lapidist: Lapidist,
    llama_directory: Path,
    text: Path,
    evaluation: str,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(text.parent)
    Path("empty.txt").write_text("")
    Path("letter.txt").write_text("x")
    models = [llama_directory] * (1 if evaluation == "perplexity" else 2)
    result = lapidist("eval", evaluation, *models, *options)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plot", "cost.gif"], "cost.gif: a plot is written as .png, .svg, .pdf"),
        (["--plot", "absent/cost.png"], "the folder absent does not exist"),
        (["--json", "absent/result.json"], "the folder absent does not exist"),
        (["--needle-lengths", "150,x"], "--needle-lengths must be numbers such as 256,1024, got '150,x'"),
        (["--needle-lengths", "20"], "a prompt of 20 tokens is too short"),
        (["--needle-lengths", "600"], "a prompt of 600 tokens is longer than the model's context of 512"),
    ],
)
def test_what_cannot_be_compared(
    lapidist: Lapidist, llama_directory: Path, text: Path, options: list[str], message: str
) -> None:
    result = lapidist("eval", "quantization", llama_directory, llama_directory, "--text", text, *options)
    assert result.returncode == 2
    assert message in result.stderr


def test_another_models_candidate(
    lapidist: Lapidist, llama_directory: Path, text: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(llama_directory, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-9]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    result = lapidist("eval", "quantization", llama_directory, other, "--text", text, *FAST)
    assert result.returncode == 2
    assert "has another tokenizer than" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_help(lapidist: Lapidist) -> None:
    for evaluation in ("perplexity", "quantization"):
        result = lapidist("eval", evaluation, "--help")
        assert result.returncode == 0
        assert "Example" in result.stdout
    assert "quantization" in lapidist("eval", "--help").stdout
