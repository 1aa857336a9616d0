"""What quantized activations and cached vectors are worth: bounds of the error, and vectors at the edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.quantization.fake_quantization import fake_quantize_kv, fake_quantize_rows
from tests.quantization.signal_to_noise import decibels, gaussian

seeds = st.integers(0, 1 << 30)


@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(st.integers(0, 5), st.integers(1, 70)), exponent=st.integers(-20, 20), seed=seeds)
def test_rows_err_by_half_a_step_at_most(shape: tuple[int, int], exponent: int, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(shape) * 10.0**exponent
    steps = x.abs().amax(1, keepdim=True) / 127
    assert ((fake_quantize_rows(x) - x).abs() <= steps * 0.50001).all()


def test_rows_of_zeros_stay() -> None:
    assert torch.equal(fake_quantize_rows(torch.zeros(2, 3)), torch.zeros(2, 3))


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    shape=st.tuples(st.integers(0, 4), st.integers(1, 3), st.sampled_from([16, 64, 128])),
    offset=st.floats(-3, 3),
    seed=seeds,
)
def test_cached_heads_err_by_half_a_step_at_most(
    bits: int, shape: tuple[int, int, int], offset: float, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(shape) + offset
    lowest, highest = x.aminmax(dim=-1, keepdim=True)
    # Scale and zero are rounded to float16.
    slack = 2.0**-10 * (highest - lowest + x.abs().amax(-1, keepdim=True))
    error = (fake_quantize_kv(x, bits) - x).abs()
    assert (error <= (highest - lowest) / (2**bits - 1) / 2 + slack).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.375, 1000.0, 2.0**-24, -60000.0])
def test_constant_heads_stay(bits: int, value: float) -> None:
    x = torch.full((2, 64), value)
    assert torch.equal(fake_quantize_kv(x, bits), x)


def test_nearly_constant_heads_give_no_infinity() -> None:
    x = 1000.0 + torch.rand(4, 64) * torch.tensor([1e-4, 1e-3, 1e-2, 1e-1])[:, None]
    torch.testing.assert_close(fake_quantize_kv(x, 4), x, rtol=2.0**-10, atol=0)


def test_signal_to_noise() -> None:
    x = gaussian()
    assert decibels(x, fake_quantize_rows(x)) == pytest.approx(41.2, abs=0.2)
    assert decibels(x.view(-1, 128), fake_quantize_kv(x.view(-1, 128), 4)) == pytest.approx(20.0, abs=0.2)


def test_an_outlier_channel_ruins_rows() -> None:
    """Why hidden states are rotated."""
    x = gaussian()
    x[:, 7] *= 50.0
    others = torch.arange(x.shape[1]) != 7
    assert decibels(x[:, others], fake_quantize_rows(x)[:, others]) < 25
