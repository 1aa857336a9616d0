"""Fixtures of the quantization tests."""

from typing import Any

import pytest
import torch

from tests.kernels.conftest import seed
from tests.quantization.transformers_weights import FAMILIES, build_exact

__all__ = ["model", "seed"]


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, seed: int, dtype: torch.dtype) -> Any:
    """A small random ``transformers`` model of each family, twice: in double and in single precision."""
    return build_exact(request.param, seed, dtype)
