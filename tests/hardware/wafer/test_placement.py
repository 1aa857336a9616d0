import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.gemm_algorithms import align
from lapidist.hardware.wafer.line import Line
from lapidist.hardware.wafer.placement import from_tiles, skew_columns, skew_rows, to_tiles
from lapidist.hardware.wafer.ring import receive_from
from lapidist.hardware.wafer.simulator import Simulator


@given(rows=st.integers(1, 30), columns=st.integers(1, 30), down=st.integers(1, 9), across=st.integers(1, 9))
def test_tiles_hold_the_matrix_and_zeros(rows: int, columns: int, down: int, across: int) -> None:
    matrix = np.random.default_rng(0).standard_normal((rows, columns))
    tiles = to_tiles(matrix, down, across)
    assert tiles.shape == (down, across, -(-rows // down), -(-columns // across))
    assert np.array_equal(from_tiles(tiles, rows, columns), matrix)
    assert np.count_nonzero(tiles) == matrix.size


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 8, 13])
def test_alignment_on_the_mesh_ends_where_placement_would_put_it(slots: int) -> None:
    tiles = np.random.default_rng(0).standard_normal((slots, slots, 2, 3))
    across, down = Line("x", slots), Line("y", slots)
    for kind in ("interleaved", "cyclic"):
        simulator = Simulator(slots, slots, {"a": tiles.copy(), "b": tiles.copy()})
        program = (align("a", 6, across, down, kind), align("b", 6, down, across, kind))
        simulator.run(Description("align", slots, slots, {}, program))
        assert np.array_equal(simulator.tiles["a"], skew_columns(tiles, kind))
        assert np.array_equal(simulator.tiles["b"], skew_rows(tiles, kind))


@pytest.mark.parametrize("slots", [3, 4, 7, 12])
def test_skewed_rows_as_the_released_launcher_builds_them(slots: int) -> None:
    """Column 0 is the identity, column 1 receives it; odd columns receive from two before, even ones send to it."""
    blocks = skew_rows(np.arange(slots).reshape(slots, 1, 1, 1).repeat(slots, axis=1), "interleaved")[
        ..., 0, 0
    ]
    receive = receive_from("interleaved", slots)
    send = receive_from("interleaved", slots, -1)
    expected = [np.arange(slots), receive]
    for column in range(2, slots):
        step = receive if column % 2 else send
        expected.append(step[expected[column - 2]])
    assert np.array_equal(blocks, np.stack(expected, axis=1))
