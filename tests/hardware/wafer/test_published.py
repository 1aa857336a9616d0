"""The paper's tables as data, and what can be computed from them without any model."""

import pytest

from lapidist.hardware.wafer.published import (
    published_models,
    published_tables,
    released_groups,
    table_3_measurements,
    table_4_measurements,
)


def test_cycles_of_a_layer() -> None:
    """The first row of each table: 1.1 GHz x 4096 / (20320.6 x 32) and 1.1 GHz / (2699.9 x 32)."""
    assert table_3_measurements()[0].cycles == pytest.approx(6.929e6, rel=1e-3)
    assert table_4_measurements()[0].cycles == pytest.approx(12731.9, rel=1e-4)
    assert len(table_3_measurements()) == len(table_4_measurements()) == 12


def test_every_row_of_a_table_is_complete() -> None:
    tables = published_tables()
    for name in ("table_3", "table_4"):
        assert set(tables[name]["rates"]) == set(published_models())
        for row in tables[name]["rates"].values():
            assert all(len(row[system]) == 3 for system in ("WaferLLM", "T10", "Ladder"))
    for row in tables["table_2"]["rates"].values():
        assert all(len(rates) == len(tables["table_2"]["requests"]) for rates in row.values())


def test_groups_are_those_released_or_near_the_square_root() -> None:
    assert (released_groups(360), released_groups(720), released_groups(480)) == (18, 24, 20)
    assert released_groups(100) == 10
    assert released_groups(97) in (1, 97)


def test_energy_ratios_follow_from_speed_and_power() -> None:
    """All 16 printed ratios are speed-up x GPUs / 37.5, to the last printed digit."""
    tables = published_tables()
    power = tables["power_watts"]["WSE-2"] / tables["power_watts"]["A100"]
    checked = 0
    for row in tables["table_6"]:
        ratio = row["gpu_milliseconds"] / row["wafer_milliseconds"] * row["gpus"] / power
        assert ratio == pytest.approx(row["energy_ratio"], abs=0.01)
        checked += 1
    for table in ("table_7", "table_8"):
        for row in tables[table]:
            ratio = row["wafer_rate"] / row["gpu_rate"] * row["gpus"] / power
            assert ratio == pytest.approx(row["energy_ratio"], abs=0.01)
            checked += 1
    assert checked == 16
