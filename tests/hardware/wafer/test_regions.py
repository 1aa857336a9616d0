"""Rectangles of a wafer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.regions import (
    Grid,
    layers_of_a_region,
    regions_on_wafer,
    require_on_wafer,
)

WSE2 = load_device("wse-2")


@given(one=st.integers(1, 100), more=st.integers(1, 50), limit=st.integers(1, 500), layers=st.integers(1, 20))
def test_layers_of_a_region(one: int, more: int, limit: int, layers: int) -> None:
    found = layers_of_a_region(one, one + more, limit, layers)
    assert 0 <= found <= layers
    assert found == sum(one + count * more <= limit for count in range(layers))


def test_squares_of_the_paper_fit_four_times_not_five() -> None:
    """Table 2's decode grids: the area would hold five or six, the fabric of 994 x 750 holds 2 x 2."""
    for side in (360, 375):
        assert WSE2.rows * WSE2.cols / side**2 > 5
        assert regions_on_wafer(WSE2, Grid(side, side)) == 4
    assert regions_on_wafer(WSE2, Grid(331, 375)) == 6, (
        "another shape of the same area uses the fabric better"
    )


def test_bands_mix_upright_and_turned_regions() -> None:
    assert regions_on_wafer(WSE2, Grid(200, 300)) == regions_on_wafer(WSE2, Grid(300, 200)) == 10


@given(st.integers(1, 1000), st.integers(1, 1000))
def test_never_more_than_the_area(rows: int, cols: int) -> None:
    found = regions_on_wafer(WSE2, Grid(rows, cols))
    assert 0 <= found * rows * cols <= WSE2.rows * WSE2.cols
    assert (found == 0) == (max(rows, cols) > 994 or min(rows, cols) > 750)


def test_a_grid_as_text() -> None:
    assert Grid.parse("660") == Grid(660, 660)
    assert Grid.parse("331x375") == Grid.parse(" 331 × 375 ") == Grid(331, 375)
    assert str(Grid(331, 375)) == "331x375"
    for text in ("", "x", "3x4x5", "-3", "0", "a x b"):
        with pytest.raises(ValueError, match="grid"):
            Grid.parse(text)


def test_a_grid_beyond_the_wafer_is_refused() -> None:
    require_on_wafer(WSE2, Grid(750, 994))
    with pytest.raises(ValueError, match="751x751 cores do not fit on Cerebras WSE-2"):
        require_on_wafer(WSE2, Grid(751, 751))
