"""Algorithms side by side."""

import pytest

from lapidist.hardware.wafer.contest import by_algorithm, gemm_contest, gemv_contest
from lapidist.hardware.wafer.cost import CostModel
from lapidist.hardware.wafer.cost_constants import calibrated_constants
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.gemm_algorithms import GEMMShape
from lapidist.hardware.wafer.regions import Grid

WSE2 = load_device("wse-2")
MODEL = CostModel(calibrated_constants("wse-2"), 4)


def test_products_and_who_is_refused() -> None:
    """4K on 720 x 720: only the ring algorithms have routes for it."""
    shape = GEMMShape(4096, 4096, 4096)
    entries = {entry.name: entry for entry in gemm_contest(shape, Grid(720, 720), WSE2, MODEL)}
    assert entries["meshgemm"].refusal == entries["cannon"].refusal == ""
    for name in ("summa", "allgather"):
        assert "routes on core" in entries[name].refusal or "bytes on core" in entries[name].refusal
    running = [entry for entry in entries.values() if not entry.refusal]
    assert min(running, key=lambda entry: entry.cost.cycles).name == "meshgemm"
    found = entries["meshgemm"].to_json(WSE2)
    assert found["seconds"] == pytest.approx(entries["meshgemm"].cost.cycles / 1.1e9)
    assert found["hops_per_step"] == 2
    assert found["refusal"] is None


def test_aligned_operands_save_the_alignment() -> None:
    shape = GEMMShape(1024, 1024, 1024)
    cold, warm = (gemm_contest(shape, Grid(64, 64), WSE2, MODEL, aligned) for aligned in (False, True))
    for before, after in zip(cold, warm, strict=True):
        saves = before.name in ("meshgemm", "cannon")
        assert (after.cost.cycles < before.cost.cycles) == saves


def test_sums_side_by_side_over_grids() -> None:
    grids = [Grid(side, side) for side in (120, 240, 480)]
    entries = [entry for grid in grids for entry in gemv_contest(4096, 4096, grid, WSE2, MODEL)]
    curves = by_algorithm(entries)
    assert list(curves) == ["K-tree, K=1", "K-tree, K=2", "K-tree, K=3", "pipeline", "ring"]
    assert all([entry.grid for entry in curve] == grids for curve in curves.values())
    for side in range(3):
        assert curves["K-tree, K=2"][side].cost.cycles < curves["pipeline"][side].cost.cycles


def test_a_grid_may_lie_across_the_wafer() -> None:
    entries = gemv_contest(64, 64, Grid(60, 900), WSE2, MODEL)
    assert all(entry.refusal == "" for entry in entries)


def test_bad_grids_and_groups_are_named() -> None:
    with pytest.raises(ValueError, match="do not fit on Cerebras WSE-2"):
        gemm_contest(GEMMShape(8, 8, 8), Grid(900, 900), WSE2, MODEL)
    with pytest.raises(ValueError, match="number of groups"):
        gemv_contest(64, 64, Grid(16, 16), WSE2, MODEL, groups=17)
