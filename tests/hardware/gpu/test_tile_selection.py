"""Tile times learned within a GPU, carried to another one, and what a wrong choice costs."""

import numpy as np
import pandas as pd
import pytest

from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.splits import few_points
from lapidist.hardware.gpu.tile_selection import (
    PARAMETERS,
    TileTimeModel,
    TransferredTileModel,
    fastest,
    regret,
    tile_features,
)
from tests.hardware.gpu.measured_data import measured_data

FILE = "kerneltuner_clblast_gemm4096_tiles.parquet"


@pytest.fixture(scope="module")
def gpus() -> dict[str, pd.DataFrame]:
    table = pd.read_parquet(measured_data(FILE) / FILE)
    return {str(name): rows.reset_index(drop=True) for name, rows in table.groupby("gpu")}


def test_within_a_gpu(gpus: dict[str, pd.DataFrame]) -> None:
    rows = gpus["NVIDIA GeForce RTX 3060 Laptop GPU"]
    train, test = few_points(len(rows), len(rows) * 4 // 5).apply(rows)
    predicted = TileTimeModel.fit(train, train["time_ms"]).milliseconds(test)
    measured = test["time_ms"].to_numpy(dtype=float)
    assert accuracy(measured, predicted).median_ape <= 0.02
    assert regret(measured, predicted, 10) <= 0.03


def test_a_new_gpu_with_twenty_points(gpus: dict[str, pd.DataFrame]) -> None:
    new = gpus.pop("NVIDIA TITAN RTX")
    sources = [TileTimeModel.fit(rows, rows["time_ms"], trees=300) for rows in gpus.values()]
    points, rest = few_points(len(new), 20).apply(new)
    predicted = TransferredTileModel.fit(sources, points, points["time_ms"]).milliseconds(rest)
    assert regret(rest["time_ms"].to_numpy(dtype=float), predicted, 10) <= 0.1


def test_a_gpu_twice_as_slow_is_found_by_two_points() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({name: 2 ** rng.integers(0, 3, 300) for name in PARAMETERS})
    times = 1.0 + rows["MWG"] * rows["VWM"]
    source = TileTimeModel.fit(rows, times, trees=200)
    twice = TransferredTileModel.fit([source], rows[:20], 2 * source.milliseconds(rows[:20]))
    assert twice.powers == pytest.approx([1.0], abs=1e-6)
    np.testing.assert_allclose(twice.milliseconds(rows), 2 * source.milliseconds(rows), rtol=1e-6)


def test_regret_by_hand() -> None:
    measured, predicted = np.array([4.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0])
    assert list(fastest(predicted, 2)) == [0, 1]
    assert regret(measured, predicted, 1) == 3.0
    assert regret(measured, predicted, 2) == 1.0
    assert regret(measured, predicted, 3) == 0.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="lack the parameter 'VWN'"):
        tile_features(pd.DataFrame({name: [1] for name in PARAMETERS if name != "VWN"}))
    with pytest.raises(ValueError, match="needs a source and two measured"):
        TransferredTileModel.fit([], pd.DataFrame(), [])
