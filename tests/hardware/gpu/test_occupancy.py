"""Occupancy against numbers of NVIDIA's own calculator and white papers, and its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.gpu.occupancy import SM_LIMITS, Occupancy, occupancy


@pytest.mark.parametrize(
    ("capability", "threads", "registers", "shared", "blocks", "share", "limiter"),
    [
        ("8.9", 256, 32, 2048, 6, 1.0, "warps"),
        ("8.9", 1024, 32, 8192, 1, 2 / 3, "warps"),
        ("8.9", 64, 32, 512, 24, 1.0, "blocks"),
        ("8.9", 16, 32, 128, 24, 0.5, "blocks"),
        ("8.0", 1024, 32, 0, 2, 1.0, "warps"),
        ("8.0", 256, 128, 0, 2, 0.25, "registers"),
        ("9.0", 384, 168, 227 * 1024, 1, 12 / 64, "shared memory"),
        ("7.5", 128, 255, 0, 2, 8 / 32, "registers"),
        ("8.6", 256, 32, 48 * 1024, 2, 16 / 48, "shared memory"),
        ("7.0", 128, 37, 0, 12, 48 / 64, "registers"),  # 40 registers a thread once rounded
    ],
)
def test_known_kernels(
    capability: str, threads: int, registers: int, shared: int, blocks: int, share: float, limiter: str
) -> None:
    found = occupancy(capability, threads, registers, shared)
    assert found.blocks == blocks
    assert found.share == pytest.approx(share)
    assert limiter in found.limiters


@given(
    st.sampled_from(sorted(SM_LIMITS)), st.integers(1, 1024), st.integers(1, 255), st.integers(0, 48 * 1024)
)
def test_more_demand_never_helps(capability: str, threads: int, registers: int, shared: int) -> None:
    found = occupancy(capability, threads, registers, shared)
    assert 0 <= found.share <= 1
    assert found.blocks * threads <= SM_LIMITS[capability].threads
    assert occupancy(capability, threads, min(registers + 8, 255), shared).blocks <= found.blocks
    assert occupancy(capability, threads, registers, max(0, shared - 1024)).blocks >= found.blocks


def test_a_block_that_does_not_fit() -> None:
    assert occupancy("8.9", 1024, 128) == Occupancy(0, 0, 0.0, ("registers",))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("8.9", 2048), "threads per block must be from 1 to 1024, got 2048"),
        (("8.9", 32, 300), "registers per thread must be from 1 to 255"),
        (("8.9", 32, 32, 10**6), "bytes of shared memory per block must be from 0 to 101376"),
        (("5.0", 32), "compute capability 5.0; known are"),
    ],
)
def test_what_no_kernel_can_ask_for(arguments: tuple[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        occupancy(*arguments)
