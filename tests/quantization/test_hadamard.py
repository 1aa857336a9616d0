"""Hadamard matrices and their fast products."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.quantization.hadamard import apply_hadamard, hadamard_matrix, supported

ORDERS = [order for order in range(1, 400) if supported(order)]


def test_rows_are_orthogonal_in_every_supported_order() -> None:
    for order in ORDERS:
        matrix = hadamard_matrix(order)
        assert matrix.dtype == torch.int8
        assert matrix.abs().eq(1).all()
        assert torch.equal(matrix.float() @ matrix.float().T, order * torch.eye(order)), order


def test_only_orders_that_no_paley_matrix_reaches_are_missing() -> None:
    """The multiples of four that are neither ``q + 1`` nor ``2 (q + 1)`` of a prime power nor twice such an order."""
    missing = [order for order in range(4, 400, 4) if not supported(order)]
    assert missing == [92, 116, 156, 172, 184, 188, 232, 236, 260, 268, 292, 324, 356, 372, 376]
    assert not any(supported(order) for order in range(-4, 400) if order < 1 or (order > 2 and order % 4))


@pytest.mark.parametrize(
    "order", [576, 896, 960, 1152, 1536, 2048, 2304, 2560, 3072, 3200, 3584, 4096, 5120, 8192]
)
def test_public_models_hidden_sizes_are_supported(order: int) -> None:
    assert supported(order)


def test_the_matrix_is_always_the_same() -> None:
    assert torch.equal(hadamard_matrix(108), hadamard_matrix(108))
    expected = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.int8)
    assert torch.equal(hadamard_matrix(4), expected)


@pytest.mark.parametrize(("order", "nearest"), [(92, "88 and 96"), (7, "4 and 8"), (3, "2 and 4")])
def test_other_orders_are_refused_with_the_nearest(order: int, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"order {order} .*{nearest}.*recipe"):
        hadamard_matrix(order)
    with pytest.raises(ValueError, match=f"order {order} "):
        apply_hadamard(torch.zeros(2, order))


@settings(max_examples=60, deadline=None)
@given(order=st.sampled_from(ORDERS), dim=st.integers(-3, 2), seed=st.integers(0, 1 << 30))
def test_product_equals_that_with_the_matrix(order: int, dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    shape = [2, 3, 2]
    shape[dim] = order
    x = torch.randn(shape, dtype=torch.float64)
    expected = x.movedim(dim, -1) @ hadamard_matrix(order).double() / math.sqrt(order)
    found = apply_hadamard(x, dim)
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected.movedim(-1, dim), rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [64, 96, 576])
def test_an_outlier_is_spread_evenly_and_lengths_stay(order: int) -> None:
    x = torch.randn(5, order)
    torch.testing.assert_close(apply_hadamard(x).norm(dim=1), x.norm(dim=1))
    outlier = torch.zeros(order)
    outlier[order // 3] = 100.0
    torch.testing.assert_close(apply_hadamard(outlier).abs(), torch.full((order,), 100 / math.sqrt(order)))


def test_no_vectors() -> None:
    assert apply_hadamard(torch.empty(0, 12)).shape == (0, 12)
