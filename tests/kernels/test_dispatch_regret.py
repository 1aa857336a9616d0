"""What a table loses against measurements."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lapidist.kernels.dispatch import DispatchTable, WeightShape
from lapidist.kernels.dispatch_regret import picks, regret
from lapidist.kernels.dispatch_search import search

SHAPE = WeightShape(64, 32, torch.bfloat16)


def test_by_hand() -> None:
    table = DispatchTable({SHAPE: ((1, "gemv"), (2, "flat"))})
    curves = {SHAPE: {"gemv": {1: 1.0, 2: 3.0, 4: 4.0}, "flat": {1: 2.0, 2: 2.0, 4: 5.0}}}
    found = regret(table, curves)
    assert found.max == pytest.approx(0.25)
    assert found.geomean == pytest.approx(1.25 ** (1 / 3) - 1)
    assert (found.points, found.worst) == (3, (SHAPE, 4))
    assert found.fastest_share == found.near_fastest_share == pytest.approx(2 / 3)


def test_near_ties_count_as_right() -> None:
    table = DispatchTable(default=((1, "gemv"),))
    found = regret(table, {SHAPE: {"gemv": {1: 1.01}, "flat": {1: 1.0}}})
    assert (found.fastest_share, found.near_fastest_share) == (0, 1)


def test_where_the_pick_does_not_run_the_last_stands_in() -> None:
    table = DispatchTable(default=((1, "gemv"),))
    curves = {SHAPE: {"gemv": {1: 1.0}, "flat": {1: 2.0, 8: 2.0}, "library": {1: 3.0, 8: 3.0}}}
    assert [picked for _, _, _, picked in picks(table, curves)] == ["gemv", "library"]
    assert regret(table, curves).max == pytest.approx(0.5)


def test_no_timings() -> None:
    with pytest.raises(ValueError, match="no timings"):
        regret(DispatchTable(), {})


times = st.dictionaries(st.integers(1, 20), st.floats(1e-6, 1e-3), min_size=1, max_size=8)


@given(times, st.floats(0, 0.5), st.data())
def test_a_search_loses_no_more_than_its_tolerance(
    one: dict[int, float], tolerance: float, data: st.DataObject
) -> None:
    other = {rows: data.draw(st.floats(1e-6, 1e-3)) for rows in one}
    curves = {"one": one, "other": other}
    found = regret(DispatchTable({SHAPE: search(curves, tolerance=tolerance)}), {SHAPE: curves})
    assert -1e-12 <= found.geomean <= found.max + 1e-12
    assert found.max <= tolerance + 1e-12
    assert not math.isnan(found.geomean)
