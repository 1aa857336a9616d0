"""The study's numbers come out again from its rows, recipe and split; other splits undo them."""

import numpy as np
import pandas as pd
import pytest

from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.ada_data import RUNS_FILE, read_ada_data
from lapidist.hardware.gpu.contention import OneBitPower
from lapidist.hardware.gpu.leakage import LeakageError, check_no_leakage
from lapidist.hardware.gpu.paper_recipe import (
    TARGETS,
    PaperForests,
    clipped_like_the_paper,
    paper_split,
    repeated_in_train,
)
from lapidist.hardware.gpu.splits import grouped_folds, shape_labels
from tests.hardware.gpu.measured_data import measured_data


@pytest.fixture(scope="module")
def pool() -> pd.DataFrame:
    data = read_ada_data(measured_data(RUNS_FILE))
    return clipped_like_the_paper(data.pool, data.runs)


def test_the_published_table(pool: pd.DataFrame) -> None:
    train, test = paper_split(len(pool)).apply(pool)
    forests = PaperForests.fit(train)
    found = {target: accuracy(test[target], forests.predict(test, target)) for target in TARGETS}
    assert found["runtime_ms"].r2 == pytest.approx(0.981, abs=0.003)
    assert found["runtime_ms"].mape == pytest.approx(0.1557, abs=0.007)
    assert found["power_w"].r2 == pytest.approx(0.78, abs=0.02)
    assert found["power_w"].median_ape == pytest.approx(0.0542, abs=0.005)
    assert found["energy_j"].r2 == pytest.approx(0.86, abs=0.02)
    assert found["gflops"].r2 == pytest.approx(0.86, abs=0.02)
    assert found["gflops"].mape == pytest.approx(0.11, abs=0.01)


def test_unseen_shapes_undo_it(pool: pd.DataFrame) -> None:
    predicted = np.zeros(len(pool))
    for fold in grouped_folds(shape_labels(pool, "MNK"), 6):
        train, test = fold.apply(pool)
        predicted[fold.test] = PaperForests.fit(train, ("runtime_ms",)).predict(test, "runtime_ms")
    found = accuracy(pool["runtime_ms"], predicted)
    assert found.r2 <= 0.6
    assert found.mape >= 0.6


def test_test_rows_repeat_train_rows(pool: pd.DataFrame) -> None:
    split = paper_split(len(pool))
    assert repeated_in_train(pool, split) > 0.99
    with pytest.raises(LeakageError, match="36 keys are in both"):
        check_no_leakage(*split.apply(pool), key=("M", "N", "K"))


def test_one_bit_beats_the_power_forest(pool: pd.DataFrame) -> None:
    train, test = paper_split(len(pool)).apply(pool)
    bit = OneBitPower.fit(train["foreign_job"].to_numpy(), train["power_w"].to_numpy())
    one_bit = accuracy(test["power_w"], bit.watts(test["foreign_job"].to_numpy()))
    forest = accuracy(test["power_w"], PaperForests.fit(train, ("power_w",)).predict(test, "power_w"))
    assert one_bit.r2 > forest.r2
    assert one_bit.median_ape < forest.median_ape
    assert one_bit.mape < forest.mape
