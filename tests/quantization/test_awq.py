"""AWQ: the model computes what it did, and rounding hurts it less."""

from typing import Any

import torch
from torch import Tensor

from lapidist.quantization.awq import awq, search_awq_scales
from lapidist.quantization.block import BlockShape, BlockWeights
from lapidist.quantization.linear_inputs import LinearInputs
from lapidist.quantization.output_error import error_of_outputs
from lapidist.quantization.per_channel import per_channel_grid
from tests.quantization.correlated_inputs import correlated_inputs
from tests.quantization.transformers_weights import is_unchanged, read_weights, shape_of


def random_inputs(block: BlockWeights, shape: BlockShape) -> LinearInputs:
    hidden_size = block.q.shape[1]
    sizes = (hidden_size, shape.num_heads * shape.head_dim, hidden_size, len(block.up))
    return LinearInputs(*(correlated_inputs(100, size).to(block.q) for size in sizes))


def test_logits_stay(model: Any) -> None:
    _, blocks = read_weights(model)
    shape = shape_of(model)
    scaled = [awq(block, shape, random_inputs(block, shape), per_channel_grid) for block in blocks]
    assert is_unchanged(model, scaled)
    for name in ("q", "v", "o", "up", "down", "input_norm", "pre_mlp_norm"):
        assert not torch.equal(scaled[0].tensors()[name], blocks[0].tensors()[name]), name


def rounding_error(scales: Tensor, weights: tuple[Tensor, ...], x: Tensor) -> float:
    """Of the outputs, with all the rounding that there is."""
    errors = []
    for weight in weights:
        rounded = per_channel_grid(weight * scales).round_to_nearest(weight * scales).dequantize()
        errors.append(((x / scales) @ rounded.T - x @ weight.T).square().sum())
    return float(sum(errors))


def test_outputs_are_nearer() -> None:
    x = torch.randn(300, 200)
    x[:, ::20] *= 30.0
    weights = (torch.randn(40, 200), torch.randn(70, 200))
    scales = search_awq_scales(weights, x.abs().mean(0), error_of_outputs(x), per_channel_grid)
    assert rounding_error(scales, weights, x) < 0.7 * rounding_error(torch.ones(200), weights, x)
    assert scales[::20].min() > scales[1::20].max()


def test_scales_are_ones_where_others_would_hurt() -> None:
    """Large activations of small weights: to raise them more is to coarsen the rest for nothing."""
    x = torch.randn(300, 64)
    weight = torch.zeros(20, 64)
    weight[:, :32] = torch.randn(20, 32)
    x[:, 32:] *= 100.0
    scales = search_awq_scales((weight,), x.abs().mean(0), error_of_outputs(x), per_channel_grid)
    tried = [rounding_error(scales, (weight,), x), rounding_error(torch.ones(64), (weight,), x)]
    assert tried[0] <= tried[1] * (1 + 1e-5)
