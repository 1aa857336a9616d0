"""The wave law and its Gaussian process: on made-up times, and on the measured RTX 4070."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from lapidist.hardware.gpu.accuracy import Accuracy, accuracy
from lapidist.hardware.gpu.ada_data import RUNS_FILE, clean_medians, read_ada_data
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.sgemm_model import SgemmModel
from lapidist.hardware.gpu.splits import Split, leave_one_out, shape_labels, split_by_mask
from lapidist.hardware.gpu.wave_law import start_law
from tests.hardware.gpu.measured_data import measured_data
from tests.hardware.gpu.test_wave_law import grid

START = start_law(load_data_sheet("rtx-4070"))


@pytest.fixture(scope="module")
def medians() -> pd.DataFrame:
    return clean_medians(read_ada_data(measured_data(RUNS_FILE)).runs)


@dataclass(frozen=True)
class Judged:
    accuracy: Accuracy
    coverage: float


def _judge(rows: pd.DataFrame, folds: list[Split]) -> Judged:
    """Over the test rows of all folds; the interval is that of 90 %."""
    measured, predicted, low, high = [], [], [], []
    for fold in folds:
        train, test = fold.apply(rows)
        model = SgemmModel.fit(START, train, train["runtime_ms"].to_numpy() / 1e3)
        measured.append(test["runtime_ms"].to_numpy() / 1e3)
        predicted.append(model.seconds(test))
        for side, values in zip((low, high), model.interval(test), strict=True):
            side.append(values)
    seconds = np.concatenate(measured)
    inside = (np.concatenate(low) <= seconds) & (seconds <= np.concatenate(high))
    return Judged(accuracy(seconds, np.concatenate(predicted)), float(inside.mean()))


def test_the_process_learns_what_the_law_leaves() -> None:
    rows = grid()
    extra = 0.01 * (rows["transposition"] == "tt") * (rows["N"] >= 2048)
    times = np.exp(START.log_seconds(rows) + extra)
    model = SgemmModel.fit(START, rows, times)
    assert np.abs(np.log(model.seconds(rows) / times)).max() < 0.5 * 0.01


def test_far_away_the_law_remains_and_the_interval_widens() -> None:
    rows = grid()
    model = SgemmModel.fit(START, rows, np.exp(START.log_seconds(rows)))
    far = rows.assign(M=rows["M"] * 2**10)
    (low, high), (far_low, far_high) = model.interval(rows), model.interval(far)
    assert np.median(np.log(far_high / far_low)) > 2 * np.median(np.log(high / low))
    np.testing.assert_allclose(model.seconds(far), np.exp(model.law.log_seconds(far)), rtol=0.01)


def test_unseen_shapes(medians: pd.DataFrame) -> None:
    found = _judge(medians, list(leave_one_out(shape_labels(medians, "MNK"))))
    assert found.accuracy.mape <= 0.009
    assert found.accuracy.max_ape <= 0.08
    assert 0.86 <= found.coverage <= 0.94


def test_sixty_times_the_rows(medians: pd.DataFrame) -> None:
    found = _judge(medians, [split_by_mask("M", medians["M"] > 2048)])
    assert found.accuracy.mape <= 0.03
    assert found.coverage >= 0.86


def test_larger_products(medians: pd.DataFrame) -> None:
    work = medians["M"] * medians["N"] * medians["K"]
    found = _judge(medians, [split_by_mask("work", work > 2**31)])
    assert found.accuracy.mape <= 0.023
    assert found.coverage >= 0.86
