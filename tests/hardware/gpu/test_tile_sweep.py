"""The naive kernel's tile sweep: what the study's data say to its claims."""

import pandas as pd
import pytest

from lapidist.hardware.gpu.ada_data import NAIVE_FILE, RUNS_FILE, read_ada_data
from lapidist.hardware.gpu.tile_sweep import published_claims, tile_sweep
from tests.hardware.gpu.measured_data import measured_data


def test_claims_against_the_measurements() -> None:
    rows = tile_sweep(read_ada_data(measured_data(RUNS_FILE, NAIVE_FILE)).naive)
    ratio = {row.tile: row.time_ratio for row in rows}
    assert [row.shapes for row in rows] == [12] * 5
    assert {tile: round(value, 2) for tile, value in ratio.items() if tile > 1} == {
        4: 5.08,
        8: 1.83,
        16: 1.0,
        32: 1.18,
    }
    claims = published_claims(rows)
    assert claims["16 x 16 is the best tile"]["holds"]
    assert claims["up to 3.2 times faster"]["holds"]
    assert claims["up to 3.2 times faster"]["typical_from_8_to_16"] == pytest.approx(1.83, abs=0.01)
    assert not claims["22 % less power"]["holds"]


def test_ratios_by_hand() -> None:
    frame = pd.DataFrame(
        [(8192, 8192, 64, tile, ms, watts) for tile, ms, watts in ((8, 30, 100), (16, 10, 80), (32, 20, 60))],
        columns=["M", "N", "K", "tile", "time_ms", "avg_power_W"],
    )
    eight, sixteen, thirty_two = tile_sweep(frame)
    assert (eight.time_ratio, thirty_two.time_ratio) == (3.0, 2.0)
    assert eight.power_saving == pytest.approx(0.2)
    assert thirty_two.energy_ratio == pytest.approx(1.5)
    assert (eight.occupancy.share, sixteen.occupancy.share) == (1.0, 1.0)
    assert thirty_two.occupancy.share == pytest.approx(2 / 3)


def test_small_shapes_alone_are_refused() -> None:
    frame = pd.DataFrame(
        [(512, 512, 512, 16, 1.0, 30.0)], columns=["M", "N", "K", "tile", "time_ms", "avg_power_W"]
    )
    with pytest.raises(ValueError, match="needs shapes of 8192 and more"):
        tile_sweep(frame)
