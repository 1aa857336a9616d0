"""Smoothed inputs of o and down: the model computes what it did, and the inputs shrink by the formula."""

from typing import Any

import torch

from lapidist.quantization.kv_heads import largest_per_kv_head
from lapidist.quantization.output_smoothing import smooth_attention_output, smooth_mlp_output
from tests.quantization.transformers_weights import is_unchanged, read_weights, shape_of


def test_logits_stay(model: Any) -> None:
    _, blocks = read_weights(model)
    shape = shape_of(model)
    smoothed = []
    for block in blocks:
        attention, mlp = torch.rand(shape.num_heads * shape.head_dim), torch.rand(len(block.up))
        attention[::5], mlp[::7] = 0.0, 0.0
        block = smooth_attention_output(block, shape, attention, 0.2, 0.8)
        smoothed.append(smooth_mlp_output(block, mlp, 0.3, 0.7))
    assert is_unchanged(model, smoothed)
    assert not is_unchanged(model, [smoothed[0].with_(up=blocks[0].up), smoothed[1]])
    assert not is_unchanged(model, [smoothed[0].with_(v=blocks[0].v), smoothed[1]])


def test_down_is_scaled_by_the_formula(model: Any) -> None:
    _, (block, *_) = read_weights(model)
    maxima = torch.rand(len(block.up)).to(block.up) + 0.1
    scales = smooth_mlp_output(block, maxima, 0.3, 0.7).down[0] / block.down[0]
    expected = maxima**0.3 / block.down.abs().amax(0) ** 0.7
    torch.testing.assert_close(scales / scales[0], expected / expected[0], rtol=1e-4, atol=0)


def test_o_is_scaled_by_the_largest_of_the_heads_that_share_values(model: Any) -> None:
    _, (block, *_) = read_weights(model)
    shape = shape_of(model)
    maxima = torch.rand(shape.num_heads * shape.head_dim).to(block.o) + 0.1
    scales = block.v[:, 0] / smooth_attention_output(block, shape, maxima, 0.5, 0.5).v[:, 0]
    activations = largest_per_kv_head(maxima, shape)
    expected = (activations / largest_per_kv_head(block.o.abs().amax(0), shape)).sqrt().flatten()
    torch.testing.assert_close(scales / scales[0], expected / expected[0], rtol=1e-4, atol=0)


def test_exponents_of_zero_and_one_even_out_the_weights(model: Any) -> None:
    _, (block, *_) = read_weights(model)
    columns = smooth_mlp_output(block, torch.ones(len(block.up)), 0.0, 1.0).down.abs().amax(0)
    torch.testing.assert_close(columns, columns[:1].expand_as(columns), rtol=1e-4, atol=0)
