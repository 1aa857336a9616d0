"""Fixtures of the kernels' tests."""

from collections.abc import Iterator

import pytest
import torch

from lapidist.kernels.cpu.library import native


@pytest.fixture(params=native("portable").supported(), scope="module")
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each build of the native library that this processor runs, in turn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPIDIST_ISA", request.param)
        native.cache_clear()
        assert native().isa == request.param
        yield request.param
    native.cache_clear()


@pytest.fixture(autouse=True)
def seed() -> int:
    """Random numbers are new in every run; pytest shows what is printed beside a failure."""
    seed = torch.seed() % (1 << 31)
    torch.manual_seed(seed)
    print(f"torch.manual_seed({seed})")
    return seed
