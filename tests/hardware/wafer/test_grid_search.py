"""The sweep over grids finds what the paper's tuning found."""

from dataclasses import replace

import pytest

from lapidist.hardware.wafer.cost import CostModel
from lapidist.hardware.wafer.cost_constants import calibrated_constants
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.grid_search import candidate_grids, search_grids
from lapidist.hardware.wafer.llm_cost import LLMCost
from lapidist.hardware.wafer.published import published_models
from lapidist.hardware.wafer.regions import Grid

WSE2 = load_device("wse-2")
MODEL = CostModel(calibrated_constants("wse-2"), 4)
LLAMA3 = LLMCost(published_models()["LLaMA3-8B"], WSE2, MODEL)


def test_candidates_are_on_the_wafer() -> None:
    squares = list(candidate_grids(WSE2, 60, squares_only=True))
    assert squares == [Grid(side, side) for side in range(60, 751, 60)]
    everything = list(candidate_grids(WSE2, 250))
    assert Grid(750, 500) in everything
    assert all(grid.rows <= 994 and grid.cols <= 750 for grid in everything)
    with pytest.raises(ValueError, match="at least 1"):
        next(candidate_grids(WSE2, 0))


def test_decode_wants_a_small_grid_and_prefill_a_large_one() -> None:
    """Table 2: LLaMA3-8B decodes on 360 x 360 and prefills on 660 x 660."""
    squares = list(candidate_grids(WSE2, 60, squares_only=True))
    seen: list[tuple[int, int]] = []
    decode = search_grids(LLAMA3, "decode", 4096, squares, lambda done, total: seen.append((done, total)))
    prefill = search_grids(LLAMA3, "prefill", 4096, squares)
    assert decode.best.grid == Grid(360, 360)
    assert prefill.costs[0].grid.rows >= 600
    assert [cost.cycles for cost in decode.costs] == sorted(cost.cycles for cost in decode.costs)
    assert len(decode.costs) + decode.refused == len(squares)
    assert seen[-1] == (len(squares), len(squares))


def test_the_best_grid_has_room_for_its_regions() -> None:
    llm = replace(LLAMA3, shape=published_models()["LLaMA2-13B"])
    grids = [Grid(360, 360), Grid(375, 375), Grid(180, 480), Grid(270, 720)]
    found = search_grids(llm, "decode", 4096, grids)
    assert found.costs[0].grid == Grid(270, 720)
    assert not found.costs[0].fits
    assert found.best.grid == Grid(180, 480)
    assert found.best.regions == found.best.regions_on_wafer == 8


def test_oblong_prefill_grids_without_a_common_measure_are_left_out() -> None:
    assert not search_grids(LLAMA3, "prefill", 512, [Grid(360, 347)]).costs
    assert search_grids(LLAMA3, "prefill", 512, [Grid(360, 720)]).costs


def test_nothing_fits() -> None:
    found = search_grids(LLAMA3, "decode", 4096, [Grid(10, 10), Grid(20, 20)])
    assert found.refused == 2
    with pytest.raises(ValueError, match="no grid of this wafer can hold one layer in decode"):
        _ = found.best
