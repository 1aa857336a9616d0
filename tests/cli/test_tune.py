"""``lapidist tune`` as a user types it, on a small checkpoint."""

import importlib
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lapidist.cli.tune_report import describe
from lapidist.kernels import dispatch_timing
from lapidist.kernels.dispatch import Implementation, Inflections
from lapidist.kernels.dispatch_storage import VARIABLE, load_table
from tests.cli.command import Lapidist, command

FAST = ["--budget", "20", "--max-rows", "6"]
CPU = torch.device("cpu")


@pytest.fixture
def table_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "cache" / "table.json"
    monkeypatch.setenv(VARIABLE, str(file))
    return file


@pytest.fixture
def lapidist(
    table_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Lapidist:
    """Runs the ``lapidist`` command in this process; it keeps its table in a file of the test."""
    # Weights that come from memory take a while to write there.
    monkeypatch.setattr(dispatch_timing, "copy_count", lambda _: 3)
    return command(monkeypatch, capsys)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's products under the names of our kernels, so that every file of the command runs anywhere."""
    # What takes the kernels' names when it is imported must not be imported for the first time with these in place.
    importlib.import_module("lapidist.models.load")

    def library(x: Tensor, weight: Tensor, out: Tensor) -> None:
        out.copy_(F.linear(x, weight))

    def gemv(x: Tensor, weight: Tensor, out: Tensor) -> None:
        for row, into in zip(x, out, strict=True):
            torch.mv(weight, row, out=into)

    found = (
        Implementation("gemv", gemv, max_rows=4),
        Implementation("flat_gemm", library, max_rows=64),
        Implementation("gemm", library),
    )
    monkeypatch.setattr("lapidist.kernels.cpu.linear.IMPLEMENTATIONS", found)
    monkeypatch.setattr("lapidist.kernels.cpu.linear.pack_weight", torch.clone)


@pytest.mark.usefixtures("stand_ins")
def test_measures_prints_and_stores(
    lapidist: Lapidist, llama_directory: Path, table_file: Path, tmp_path: Path
) -> None:
    plot = tmp_path / "tuning.svg"
    result = lapidist("tune", llama_directory, *FAST, "--plot", plot)
    assert result.returncode == 0, result.stderr
    for word in ("qkv_proj", "down_proj", "lm_head", "float32", "gemv µs", "gemm µs", "picked", "GB/s"):
        assert word in result.stdout
    assert f"saved to {table_file}" in result.stdout.replace("\n", "")
    assert plot.read_text().lstrip().startswith("<?xml")
    assert load_table(CPU).entries


@pytest.mark.usefixtures("stand_ins")
def test_json_stands_alone_and_has_every_timing(
    lapidist: Lapidist, llama_directory: Path, table_file: Path
) -> None:
    result = lapidist("tune", llama_directory, *FAST, "--json", "--dtype", "float32", "--dtype", "bfloat16")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["file"] == str(table_file)
    assert {row["dtype"] for row in found["entries"]} == {"float32", "bfloat16"}
    assert len(found["entries"]) == len(found["measurements"]) == len(load_table(CPU).entries)
    seconds = found["measurements"][0]["seconds"]
    assert set(seconds["gemm"]) >= {"1", "6"}
    assert "5" not in seconds["gemv"]
    assert found["unmeasured"] == []


@pytest.mark.usefixtures("stand_ins")
def test_a_second_model_adds_its_shapes(lapidist: Lapidist, llama_directory: Path) -> None:
    lapidist("tune", llama_directory, *FAST)
    first = set(load_table(CPU).entries)
    lapidist("tune", llama_directory, *FAST, "--dtype", "bfloat16")
    assert set(load_table(CPU).entries) > first


@pytest.mark.usefixtures("stand_ins")
def test_check_tells_the_regret_and_changes_nothing(
    lapidist: Lapidist, llama_directory: Path, table_file: Path
) -> None:
    lapidist("tune", llama_directory, *FAST)
    before = table_file.read_bytes()
    result = lapidist("tune", llama_directory, *FAST, "--check")
    assert "regret" in result.stdout
    assert result.returncode == ("missed" in result.stdout)
    assert "saved" not in result.stdout + result.stderr
    found = json.loads(lapidist("tune", llama_directory, *FAST, "--check", "--json").stdout)
    assert found["regret"]["points"] > 0
    assert found["regret"]["max"] >= found["regret"]["geomean"] >= 0
    assert table_file.read_bytes() == before


@pytest.mark.parametrize(
    ("inflections", "expected"),
    [
        (((1, "gemv"), (5, "flat"), (33, "library")), "gemv, from 5 flat, from 33 library (M1 = 5, M2 = 33)"),
        (((1, "flat"),), "flat (M1 = 1, M2 = never)"),
        (((1, "library"), (4, "gemv")), "library, from 4 gemv"),
    ],
)
def test_inflections_in_words(inflections: Inflections, expected: str) -> None:
    assert describe(inflections, ("gemv", "flat", "library")) == expected


@pytest.mark.usefixtures("stand_ins")
def test_too_small_a_budget_is_told(lapidist: Lapidist, llama_directory: Path) -> None:
    result = lapidist("tune", llama_directory, "--budget", "1e-6", "--max-rows", 2)
    assert result.returncode == 0
    assert "--budget gives more time" in result.stderr


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no/such/place"], "no/such/place"),
        (["--like", "lama-3-8b"], "did you mean llama-3-8b"),
        (["MODEL", "--like", "llama-3-8b"], "either a MODEL"),
        (["MODEL", "--dtype", "float8"], "dtype must be"),
        (["MODEL", "--budget", "0"], "budget must be more than 0"),
        (["MODEL", "--budget", "nan"], "budget must be more than 0"),
        (["MODEL", "--max-rows", "0"], "max-rows"),
        (["MODEL", "--plot", "tuning.gif"], "written as"),
        (["MODEL", "--plot", "no/such/folder/tuning.png"], "no/such/folder"),
        (["MODEL", "--check"], "run lapidist tune without --check first"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(
    lapidist: Lapidist, llama_directory: Path, table_file: Path, args: list[str], message: str
) -> None:
    result = lapidist("tune", *[str(llama_directory) if arg == "MODEL" else arg for arg in args])
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert message in result.stderr
    assert not table_file.exists()


@pytest.mark.usefixtures("stand_ins")
def test_a_table_that_cannot_be_written_is_known_before_measuring(
    lapidist: Lapidist, llama_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "table.json"))
    monkeypatch.setattr("lapidist.kernels.tune.tune", None)
    result = lapidist("tune", llama_directory)
    assert result.returncode == 2
    assert "cannot be written" in result.stderr
    assert VARIABLE in result.stderr


def test_with_the_real_kernels(lapidist: Lapidist, llama_directory: Path) -> None:
    result = lapidist("tune", llama_directory, *FAST)
    assert result.returncode == 0, result.stderr
    assert load_table(CPU).entries


def test_help(lapidist: Lapidist) -> None:
    result = lapidist("tune", "--help")
    assert result.returncode == 0
    assert "Example" in result.stdout
