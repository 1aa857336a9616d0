"""``lapidist gpu list, predict, fit, validate`` as a user types them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.gemm_roofline import RooflineParameters, roofline_terms
from tests.cli.command import Lapidist, command


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    return command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up card's GEMMs: 30 sites of 12 sizes each."""
    generator = np.random.default_rng(0)
    n, k = (
        np.repeat(2.0 ** generator.integers(6, 13, 30) * generator.integers(1, 4, 30), 12) for _ in range(2)
    )
    m = np.tile(2.0 ** np.arange(12), 30)
    law = RooflineParameters(launch_seconds=4e-6, power_cap=0.6)
    seconds = roofline_terms(m, n, k, load_data_sheet("l4"), gemm_format("bf16"), law).seconds
    keys = {"system": "l4", "backend": "torch", "version": "2.6", "dtype": "bf16"}
    table = pd.DataFrame({**keys, "m": m, "n": n, "k": k, "seconds": seconds})
    folder = tmp_path_factory.mktemp("measured")
    table.drop_duplicates(["m", "n", "k"]).to_parquet(folder / "gemm.parquet")
    return folder


def test_list_shows_gpus_and_models(run: Lapidist) -> None:
    shown = run("gpu", "list")
    assert shown.returncode == 0
    assert "rtx-4090" in shown.stdout
    content = json.loads(run("gpu", "list", "--json").stdout)
    assert {"h200", "l4"} <= {gpu["name"] for gpu in content["gpus"]}
    assert {"TRTLLM", "VLLM", "SGLang"} <= {model["backend"] for model in content["gemm_models"]}


def test_predict_shows_interval_and_doubts(run: Lapidist) -> None:
    content = json.loads(run("gpu", "predict", "h200", "1,4096", "4096", "4096", "--json").stdout)
    assert content["measured"] == {"gpu": "h200", "backend": "TRTLLM", "version": "1.3.0rc20"}
    for gemm in content["gemms"]:
        assert gemm["low_seconds"] < gemm["seconds"] < gemm["high_seconds"]
    shown = run("gpu", "predict", "rtx-4090", "16", "4096", "4096")
    assert shown.returncode == 0
    assert "low" in shown.stdout


def test_fit_predict_validate(run: Lapidist, measured: Path, tmp_path: Path) -> None:
    models = str(tmp_path / "mine.zip")
    fitted = run("gpu", "fit", str(measured), models, "--trees", "20", "--leaves", "15", "--json")
    assert fitted.returncode == 0
    assert json.loads(fitted.stdout)[0]["errors"]["mape"] < 0.2
    content = json.loads(
        run("gpu", "predict", "l4", "8", "4096", "4096", "--models", models, "--json").stdout
    )
    assert content["measured"]["backend"] == "torch"
    picture = tmp_path / "errors.png"
    judged = run("gpu", "validate", str(measured), "--models", models, "--plot", str(picture), "--json")
    assert json.loads(judged.stdout)[0]["mape"] < 0.1
    assert picture.stat().st_size > 10_000
    for shown in (
        run("gpu", "validate", measured, "--models", models),
        run("gpu", "list", "--models", models),
    ):
        assert shown.returncode == 0
        assert "torch 2.6" in shown.stdout


def test_few_points_correct_a_card_that_was_not_measured(run: Lapidist, measured: Path) -> None:
    plain, corrected = (
        json.loads(run("gpu", "validate", str(measured), "--json", *options).stdout)[0]
        for options in ((), ("--calibrate", "50"))
    )
    assert corrected["mape"] < plain["mape"]
    assert corrected["calibrated_on"] == 50
    answer = run("gpu", "predict", "l4", "8", "4096", "4096", "--calibrate", str(measured / "gemm.parquet"))
    assert answer.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("predict", "h900", "1", "1", "1"), "no data sheet of a GPU named 'h900'"),
        (("predict", "h200", "1,2", "1,2,3", "1"), "lists of the same length"),
        (("predict", "h200", "many", "1", "1"), "M is 'many', not whole numbers"),
        (("predict", "a100", "1", "1", "1", "--dtype", "fp8"), "does not compute in fp8"),
        (("predict", "h200", "0", "1", "1"), "m must be a whole number"),
        (("fit", "absent.parquet", "out.zip"), "cannot be read"),
        (("fit", "absent.parquet", "out.txt"), "ends in .zip"),
        (("validate", "absent.csv"), "cannot be read"),
        (("validate", "absent.csv", "--plot", "a.bmp"), "a plot is written as"),
        (("list", "--models", "absent.zip"), "not a file of fitted GEMM models"),
    ],
)
def test_mistakes_end_in_one_sentence(run: Lapidist, arguments: tuple[str, ...], sentence: str) -> None:
    found = run("gpu", *arguments)
    assert found.returncode == 2
    assert sentence in found.stderr
    assert found.stderr.count("\n") == 1
