"""The page of all tables: which cells are there and how near they come."""

from functools import cache

import numpy as np
import pytest

from lapidist.hardware.wafer.contradictions import found_contradictions
from lapidist.hardware.wafer.reproduction import Cell, not_modelled, reproduce


@cache
def cells() -> list[Cell]:
    return reproduce()


def chosen(table: int, how: str) -> list[Cell]:
    return [cell for cell in cells() if cell.table == table and how in cell.how]


def test_every_table_is_there() -> None:
    assert {cell.table for cell in cells()} == {2, 3, 4, 5, 6, 7, 8}
    assert all(cell.ours > 0 and cell.published > 0 for cell in cells())
    assert all(not_modelled().values())


@pytest.mark.parametrize("table", [3, 4])
def test_layers_fitted_and_held_out(table: int) -> None:
    for how, mean, largest in (("fitted", 0.009, 0.025), ("held out", 0.012, 0.03)):
        errors = np.abs([cell.error for cell in chosen(table, how)])
        assert len(errors) == 12
        assert errors.mean() <= mean
        assert errors.max() <= largest


def test_whole_requests_with_one_constant_a_model() -> None:
    fitted = chosen(2, "one constant")
    assert len(fitted) == 8
    assert max(abs(cell.error) for cell in fitted) <= 0.05


def test_capacities_and_energies_to_the_last_digit() -> None:
    tokens = [cell for cell in chosen(5, "derived") if cell.unit == "tokens"]
    assert [cell.ours for cell in tokens] == [cell.published for cell in tokens] == [382, 137548, 16, 6168]
    ratios = [cell for cell in cells() if "energy" in cell.row]
    assert len(ratios) == 16
    assert all(abs(cell.ours - cell.published) <= 0.01 for cell in ratios)


def test_contradictions_are_computed() -> None:
    found = found_contradictions(cells())
    assert "0.99 to 1.00" in found[0].but
    assert "0.42 to 0.62" in found[0].but
    assert any("111x to 215x" in each.but for each in found)
    assert any("holds 4" in each.but for each in found)
