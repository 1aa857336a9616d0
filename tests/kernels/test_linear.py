"""Packed and plain linear layers against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lapidist.kernels import reference
from lapidist.kernels.linear import Linear, can_pack

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
sizes = st.one_of(st.integers(1, 9), st.integers(1, 150))


@settings(max_examples=150, deadline=None)
@given(sizes, sizes, sizes, st.booleans(), st.sampled_from(list(TOLERANCES)), st.integers(0, 1 << 30))
def test_equals_the_reference(
    rows: int, columns: int, outputs: int, has_bias: bool, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    x, weight = torch.randn(rows, columns).to(dtype), torch.randn(outputs, columns).to(dtype)
    bias = torch.randn(outputs).to(dtype) if has_bias else None
    found = Linear(weight, bias)(x)
    expected = reference.linear(x, weight, bias)
    assert found.dtype == dtype
    assert (found - expected).abs().max() <= TOLERANCES[dtype] * (1 + expected.abs().max())


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_no_rows(dtype: torch.dtype) -> None:
    found = Linear(torch.randn(5, 8).to(dtype))(torch.empty(0, 8, dtype=dtype))
    assert found.shape == (0, 5)
    assert found.dtype == dtype


def test_the_weight_given_is_not_needed_any_more() -> None:
    weight, x = torch.randn(70, 40), torch.randn(3, 40)
    assert can_pack(weight), "oneDNN packs float32 on every CPU that PyTorch is built for"
    linear = Linear(weight)
    before = linear(x)
    weight.zero_()
    assert torch.equal(linear(x), before)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_flops_are_counted(dtype: torch.dtype) -> None:
    linear = Linear(torch.randn(30, 50).to(dtype), torch.randn(30).to(dtype))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        linear(torch.randn(7, 50).to(dtype))
    assert counter.get_total_flops() == 2 * 7 * 30 * 50
