"""Maps of cores agree with the descriptions they picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.wafer.core_maps import cache_map, hop_map
from lapidist.hardware.wafer.gemm_algorithms import GEMM_ALGORITHMS, GEMMShape, gemm_description
from lapidist.hardware.wafer.gemv_algorithms import mesh_gemv


@pytest.mark.parametrize("algorithm", GEMM_ALGORITHMS)
@pytest.mark.parametrize("grid", [(7, 7), (12, 12), (4, 6)])
def test_the_longest_message_is_that_of_the_description(algorithm: str, grid: tuple[int, int]) -> None:
    described = gemm_description(algorithm, GEMMShape(48, 48, 48), *grid)  # type: ignore[arg-type]
    hops = hop_map(described)
    assert hops.shape == grid
    assert hops.max() == described.summary().hops_per_step


def test_no_message_of_mesh_gemm_crosses_more_than_two_links() -> None:
    shape = GEMMShape(720, 720, 720)
    assert hop_map(gemm_description("meshgemm", shape, 720, 720)).max() == 2
    cannon = hop_map(gemm_description("cannon", shape, 720, 720))
    assert cannon.max() == 719
    assert np.median(cannon) == 1, "one line of cores sends far, all others to their neighbour"


def test_hops_of_a_tree() -> None:
    hops = hop_map(mesh_gemv(64, 64, 16, 8, groups=4))
    assert hops.shape == (16, 8)
    assert (hops == hops[:, :1]).all(), "the sum runs along y, alike in all columns"
    assert hops[:, 0].max() == 10, "the broadcast from core 10"


@given(st.integers(1, 40), st.integers(1, 200), st.integers(0, 200))
def test_caches_hold_all_tokens(rows: int, prompt: int, output: int) -> None:
    shift, concat = (cache_map(rows, 3, prompt, output, policy) for policy in ("shift", "concat"))
    assert shift[:, 0].sum() == concat[:, 0].sum() == prompt + output
    assert np.ptp(shift) <= 1
    assert concat.max() >= shift.max()


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="needs cores and a prompt"):
        cache_map(0, 3, 5, 5, "shift")
    with pytest.raises(ValueError, match="unknown policy 'ring'"):
        cache_map(3, 3, 5, 5, "ring")  # type: ignore[arg-type]
