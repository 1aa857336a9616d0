"""Memory of packed weights: apart from one another, aligned, and given back."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.kernels.cpu.weight_memory import allocate


@settings(deadline=None)
@given(st.lists(st.integers(0, 100_000), max_size=20))
def test_nothing_overlaps(sizes: list[int]) -> None:
    tensors = [allocate(size) for size in sizes]
    for number, tensor in enumerate(tensors):
        assert tensor.data_ptr() % 64 == 0 or not len(tensor)
        tensor.fill_(number)
    for number, (tensor, size) in enumerate(zip(tensors, sizes, strict=True)):
        assert tensor.shape == (size,)
        assert (tensor == number).all()


def test_more_than_a_block() -> None:
    large, small = allocate(70 << 20), allocate(1000)
    assert large.nbytes == 70 << 20
    large[-1], small[0] = 1, 2
    assert large[-1] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_memory_is_given_back() -> None:
    def address_space() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * 4096

    allocate(70 << 20)
    before = address_space()
    for _ in range(20):
        allocate(100 << 20)
    assert address_space() - before < 500 << 20


def test_a_block_made_under_inference_mode_serves_outside() -> None:
    with torch.inference_mode():
        allocate(65 << 20)
        first = allocate(100)
    second = allocate(100)
    for tensor in (first, second):
        assert (tensor.fill_(1) == 1).all()
