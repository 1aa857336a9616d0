"""``lapidist gpu reproduce`` and ``lapidist gpu occupancy`` as a user types them."""

import json
from pathlib import Path

import pandas as pd
import pytest

from lapidist.cli import gpu_reproduce_plots
from lapidist.cli.gpu_reproduce_report import PUBLISHED, sentences, to_json
from lapidist.hardware.gpu import ada_study
from lapidist.hardware.gpu.ada_data import NAIVE_FILE, RUNS_FILE, read_ada_data
from tests.cli.command import Lapidist, command
from tests.hardware.gpu.measured_data import measured_data


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    return command(monkeypatch, capsys)


def test_a_folder_without_the_measurements(lapidist: Lapidist, tmp_path: Path) -> None:
    found = lapidist("gpu", "reproduce", tmp_path)
    assert found.returncode == 2
    assert found.stderr.startswith(f"error: {tmp_path / RUNS_FILE}: no such file")


def test_too_few_measurements(lapidist: Lapidist, tmp_path: Path) -> None:
    folder = measured_data(RUNS_FILE, NAIVE_FILE)
    pd.read_parquet(folder / RUNS_FILE).head(200).to_parquet(tmp_path / RUNS_FILE)
    (tmp_path / NAIVE_FILE).write_bytes((folder / NAIVE_FILE).read_bytes())
    found = lapidist("gpu", "reproduce", tmp_path)
    assert found.returncode == 2
    assert "the study needs at least 12 shapes" in found.stderr


@pytest.mark.slow
def test_the_whole_study(tmp_path: Path) -> None:
    """Every result and every picture, from the measurements."""
    study = ada_study.run_ada_study(read_ada_data(measured_data(RUNS_FILE, NAIVE_FILE)))
    report = json.loads(json.dumps(to_json(study)))
    targets = {row["target"] for row in report["results"] if row["data"] == ada_study.POOL}
    assert targets == set(PUBLISHED)
    for split in (ada_study.SHAPES, ada_study.LARGER_M, ada_study.LARGER_WORK):
        forest = study.find(ada_study.POOL, split, "runtime_ms", ada_study.PAPER).accuracy
        ours = study.find(ada_study.POOL, split, "runtime_ms", ada_study.OURS).accuracy
        assert ours.mape < forest.mape / 5
    assert all(sentence.endswith(".") for sentence in sentences(study))
    files = gpu_reproduce_plots.draw_study(study, tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_occupancy_of_a_kernel(lapidist: Lapidist) -> None:
    found = lapidist("gpu", "occupancy", "rtx-4070", "--threads", 1024, "--json")
    (kernel,) = json.loads(found.stdout)["kernels"]
    assert kernel["blocks"] == 1
    assert kernel["share"] == pytest.approx(2 / 3)


def test_occupancy_of_tiles(lapidist: Lapidist) -> None:
    found = lapidist("gpu", "occupancy", "8.9", "--tiles")
    assert found.returncode == 0
    assert "48 of 48" in found.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense",), "no data sheet of a GPU named 'nonsense'"),
        (("8.9", "--threads", 2000), "threads per block must be from 1 to 1024, got 2000"),
        (("8.9", "--registers", 0), "registers per thread must be from 1 to 255, got 0"),
    ],
)
def test_occupancy_of_what_cannot_be(lapidist: Lapidist, arguments: tuple[str, ...], message: str) -> None:
    found = lapidist("gpu", "occupancy", *arguments)
    assert found.returncode == 2
    assert message in found.stderr
