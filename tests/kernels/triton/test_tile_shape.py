"""Tiles of the attention kernel hold what they have to."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lapidist.kernels.triton.tile_shape import few_queries, power_of_two, tile_shape


@given(
    group=st.integers(1, 128),
    head_dim=st.integers(1, 256),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    longest=st.integers(1, 5000),
)
def test_rows_hold_the_queries(group: int, head_dim: int, dtype: torch.dtype, longest: int) -> None:
    few = few_queries(group, longest)
    assert 1 <= few <= longest
    for queries in (few, None):
        shape = tile_shape(group, head_dim, dtype, queries, 100 << 10)
        assert shape.queries >= 1
        assert 16 <= shape.rows <= 128
        assert shape.queries * group <= shape.rows
        assert shape.width >= head_dim
        for size in (shape.rows, shape.keys, shape.width):
            assert size == power_of_two(size)
        if group <= 16:
            # Keys and values, and the query of a prompt's tile, fit into the shared memory of any GPU.
            kept = 2 * shape.keys + (shape.rows if queries is None else 0)
            assert kept * shape.width * dtype.itemsize <= 96 << 10


@pytest.mark.parametrize(
    ("group", "longest", "expected"),
    [(4, 1, 1), (4, 5, 5), (4, 8, 8), (4, 9, 4), (1, 9, 9), (1, 700, 16), (32, 2, 2), (128, 2, 1)],
)
def test_few_queries(group: int, longest: int, expected: int) -> None:
    assert few_queries(group, longest) == expected
