"""Eight bits."""

import pytest
import torch

from lapidist.quantization.eight_bit import eight_bit_grid
from tests.quantization.signal_to_noise import decibels, gaussian


def test_signal_to_noise() -> None:
    exact = gaussian()
    quantized = eight_bit_grid(exact).round_to_nearest(exact)
    assert decibels(exact, quantized.dequantize()) == pytest.approx(41.2, abs=0.2)
    assert 8 * quantized.byte_count / exact.numel() == 8 + 16 / 4096


def test_codes_are_symmetric_and_extremes_are_kept() -> None:
    weight = torch.randn(30, 77)
    quantized = eight_bit_grid(weight).round_to_nearest(weight)
    assert quantized.codes.dtype == torch.int8
    assert (quantized.codes.abs().amax(1) == 127).all()
    mirrored = eight_bit_grid(-weight).round_to_nearest(-weight)
    assert torch.equal(mirrored.codes, -quantized.codes)
