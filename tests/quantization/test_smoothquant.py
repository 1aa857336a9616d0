"""SmoothQuant: the model computes what it did, and inputs and weights are equally large."""

from typing import Any

import torch

from lapidist.quantization.linear_inputs import LinearInputs
from lapidist.quantization.smoothquant import smooth_quant
from tests.quantization.transformers_weights import is_unchanged, read_weights, shape_of


def random_maxima(model: Any) -> LinearInputs:
    _, (block, *_) = read_weights(model)
    shape, hidden_size = shape_of(model), block.q.shape[1]
    sizes = (hidden_size, shape.num_heads * shape.head_dim, hidden_size, len(block.up))
    maxima = [torch.rand(size).to(block.q) + 0.01 for size in sizes]
    for each in maxima:
        each[::11] *= 100.0
    return LinearInputs(*maxima)


def test_logits_stay(model: Any) -> None:
    _, blocks = read_weights(model)
    smoothed = [
        smooth_quant(block, shape_of(model), random_maxima(model), alpha)
        for block, alpha in zip(blocks, (0.5, 0.85), strict=True)
    ]
    assert is_unchanged(model, smoothed)
    for name in ("q", "v", "o", "up", "down", "input_norm", "pre_mlp_norm"):
        assert not torch.equal(smoothed[0].tensors()[name], blocks[0].tensors()[name]), name


def test_an_alpha_of_one_half_makes_inputs_and_weights_equally_large(model: Any) -> None:
    _, (block, *_) = read_weights(model)
    maxima = random_maxima(model)
    smoothed = smooth_quant(block, shape_of(model), maxima)
    # down is scaled by up's rows and o by v's, which changes the columns that qkv and gate_up see by nothing here.
    divided = maxima.down * smoothed.up[:, 0] / block.up[:, 0]
    weights = smoothed.down.abs().amax(0)
    torch.testing.assert_close(
        divided / weights, (divided / weights).mean().expand_as(weights), rtol=1e-3, atol=0
    )
    # The query's part suffices to see what inputs of attention were divided by.
    scales = smoothed.q[0] / block.q[0]
    expected = (maxima.qkv / torch.cat((block.q, block.k, block.v)).abs().amax(0)).sqrt()
    torch.testing.assert_close(scales / scales[0], expected / expected[0], rtol=1e-3, atol=0)
