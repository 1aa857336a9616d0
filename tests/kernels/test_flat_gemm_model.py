"""Eq. 5 of FlashDecoding++ against a walk over the tiles."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.kernels.flat_gemm_model import compute_memory_ratio, traffic_elements

rows = st.integers(1, 64)
sizes = st.integers(1, 300)


@given(rows, sizes, sizes, sizes, sizes)
def test_traffic_is_what_the_tiles_read_and_write(M: int, N: int, K: int, B_N: int, B_K: int) -> None:
    elements = M * N
    for column in range(0, N, B_N):
        for channel in range(0, K, B_K):
            depth = min(B_K, K - channel)
            elements += M * depth + min(B_N, N - column) * depth
    assert traffic_elements(M, N, K, B_N, B_K) == elements


@given(rows, st.integers(1, 50), st.integers(1, 50), st.integers(1, 300), st.integers(1, 300))
def test_whole_tiles_follow_the_equation(M: int, tiles_n: int, tiles_k: int, B_N: int, B_K: int) -> None:
    N, K = tiles_n * B_N, tiles_k * B_K
    tiles = N * K // (B_N * B_K)
    assert traffic_elements(M, N, K, B_N, B_K) == (M * B_K + B_N * B_K) * tiles + M * N
    closed_form = 2 * M * K / (K + M * K / B_N + M)
    assert compute_memory_ratio(M, N, K, B_N, B_K) == pytest.approx(closed_form, rel=1e-9)


@pytest.mark.parametrize(
    ("B_N", "ratio"), [(16, 10.65), (32, 12.78), (64, 14.2), (128, 15.03), (256, 15.49), (512, 15.72)]
)
def test_eight_rows_of_4096_channels(B_N: int, ratio: float) -> None:
    assert round(compute_memory_ratio(8, 4096, 4096, B_N, 128), 2) == ratio


def test_a_size_of_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="B_N=0"):
        traffic_elements(1, 8, 8, 0, 8)
