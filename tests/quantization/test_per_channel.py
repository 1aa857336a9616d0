"""Four bits without groups."""

import pytest
import torch

from lapidist.quantization.per_channel import per_channel_grid
from tests.quantization.signal_to_noise import decibels, gaussian, heavy_tailed


def test_signal_to_noise() -> None:
    exact = gaussian()
    found = decibels(exact, per_channel_grid(exact).round_to_nearest(exact).dequantize())
    assert found == pytest.approx(17.1, abs=0.2)
    exact = heavy_tailed()
    # The farthest of two million values with such tails differs much from one draw to the next.
    found = decibels(exact, per_channel_grid(exact).round_to_nearest(exact).dequantize())
    assert found == pytest.approx(10.9, abs=1.0)


@pytest.mark.parametrize("inputs", [256, 2048, 8192])
def test_bits_per_weight(inputs: int) -> None:
    weight = torch.randn(64, inputs)
    quantized = per_channel_grid(weight).round_to_nearest(weight)
    assert 8 * quantized.byte_count / weight.numel() == 4 + 32 / inputs


def test_error_is_half_a_step_at_most() -> None:
    weight = torch.randn(40, 333).double()
    quantized = per_channel_grid(weight).round_to_nearest(weight)
    steps = quantized.scales.double()[:, None]
    # Rounding of scale and zero to float16 moves the levels at the ends.
    slack = 2.0**-10 * (15 * steps + weight.abs().amax(1, keepdim=True))
    assert ((quantized.dequantize() - weight).abs() <= steps / 2 + slack).all()


def test_clip_ratios_are_those_of_rows() -> None:
    weight = torch.randn(4, 100)
    ratios = torch.tensor([1.0, 0.5, 0.25, 1.0])[:, None]
    scales = per_channel_grid(weight, ratios).scales / per_channel_grid(weight).scales
    torch.testing.assert_close(scales.float(), ratios[:, 0], rtol=1e-3, atol=0)
