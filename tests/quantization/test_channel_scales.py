"""Scales of channels: the formula, and channels that are zero."""

import torch

from lapidist.quantization.channel_scales import channel_scales, column_maxima


def test_ratios_are_those_of_the_formula() -> None:
    activations, weights = torch.rand(2, 3, 40, dtype=torch.float64).add(0.01)
    scales = channel_scales(activations, 0.3, weights, 0.7)
    expected = activations**0.3 / weights**0.7
    torch.testing.assert_close(scales / scales[:, :1], expected / expected[:, :1])
    torch.testing.assert_close(scales.log().mean(-1), torch.zeros(3, dtype=torch.float64))
    alone = channel_scales(activations, 0.5)
    torch.testing.assert_close(alone / alone[:, :1], (activations / activations[:, :1]).sqrt())


def test_exponents_of_zero_give_ones() -> None:
    assert torch.equal(channel_scales(torch.rand(9), 0.0, torch.rand(9), 0.0), torch.ones(9))


def test_channels_of_zeros_get_one_and_do_not_count() -> None:
    activations = torch.tensor([0.0, 4.0, 1.0, 7.0])
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0])
    torch.testing.assert_close(
        channel_scales(activations, 0.5, weights, 0.5), torch.tensor([1, 2**0.5, 0.5**0.5, 1])
    )
    assert torch.equal(channel_scales(torch.zeros(4), 0.5), torch.ones(4))


def test_extremes_are_bounded() -> None:
    scales = channel_scales(torch.tensor([1e-38, 1e-38, 1.0, 1e38]), 0.9)
    assert scales.min() >= 1e-4
    assert scales.max() <= 1e4


def test_column_maxima() -> None:
    first, second = torch.tensor([[1.0, -5.0], [2.0, 3.0]]), torch.tensor([[-4.0, 0.0]])
    assert torch.equal(column_maxima(first), torch.tensor([2.0, 5.0]))
    assert torch.equal(column_maxima(first, second), torch.tensor([4.0, 5.0]))
