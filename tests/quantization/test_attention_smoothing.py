"""Smoothed keys: the model computes what it did, if and only if rotary pairs share a scale."""

from typing import Any

import pytest
import torch

from lapidist.quantization.attention_smoothing import (
    EXPONENTS,
    fold_attention_scales,
    search_attention_smoothing,
    smooth_attention,
    tie_rotary_pairs,
)
from lapidist.quantization.block import BlockWeights
from tests.quantization.transformers_weights import build_exact, is_unchanged, read_weights, shape_of


def test_logits_stay(model: Any) -> None:
    _, blocks = read_weights(model)
    shape = shape_of(model)
    smoothed = []
    for block in blocks:
        keys = torch.rand(shape.num_kv_heads, shape.head_dim)
        keys[:, ::5] = 0.0
        smoothed.append(smooth_attention(block, shape, keys))
    assert is_unchanged(model, smoothed)
    name = "q" if blocks[0].q_norm is None else "q_norm"
    assert not is_unchanged(model, [smoothed[0].with_(**{name: blocks[0].tensors()[name]}), smoothed[1]])


def test_scales_that_differ_within_a_pair_change_logits(model: Any) -> None:
    _, blocks = read_weights(model)
    shape = shape_of(model)
    heads = 1 if blocks[0].k_norm is not None else shape.num_kv_heads
    untied = torch.rand(heads, shape.head_dim).add(0.1)
    assert not is_unchanged(model, [fold_attention_scales(block, shape, untied) for block in blocks])
    tied = tie_rotary_pairs(untied, shape.rotary_dim)
    assert is_unchanged(model, [fold_attention_scales(block, shape, tied) for block in blocks])


def test_pairs_get_the_larger_and_channels_that_are_not_rotated_stay() -> None:
    maxima = torch.tensor([[1.0, 5.0, 3.0, 2.0, 9.0, 7.0]])
    assert torch.equal(tie_rotary_pairs(maxima, 4), torch.tensor([[3.0, 5.0, 3.0, 5.0, 9.0, 7.0]]))
    assert torch.equal(tie_rotary_pairs(maxima, 6), torch.tensor([[2.0, 9.0, 7.0, 2.0, 9.0, 7.0]]))


@pytest.mark.parametrize("family", ["llama-biases", "phi3"])
def test_outliers_of_keys_move_to_queries(family: str, seed: int) -> None:
    model = build_exact(family, seed, torch.float64)
    _, (block, *_) = read_weights(model)
    shape = shape_of(model)
    keys = torch.ones(shape.num_kv_heads, shape.head_dim, dtype=torch.float64)
    keys[1, 3] = 100.0
    smoothed = smooth_attention(block, shape, keys)
    ratios = (block.k / smoothed.k).mean(1).view_as(keys)
    expected = tie_rotary_pairs(keys, shape.rotary_dim).sqrt()
    torch.testing.assert_close(ratios / ratios[:, :1], expected / expected[:, :1])
    queries = (smoothed.q / block.q).mean(1).view(shape.num_kv_heads, shape.group, shape.head_dim)
    torch.testing.assert_close(queries, ratios[:, None].expand_as(queries))


def test_normalized_heads_share_scales(seed: int) -> None:
    model = build_exact("qwen3", seed, torch.float64)
    _, (block, *_) = read_weights(model)
    shape = shape_of(model)
    keys = torch.ones(shape.num_kv_heads, shape.head_dim, dtype=torch.float64)
    keys[0, 2], keys[1, 5] = 100.0, 16.0
    smoothed = smooth_attention(block, shape, keys)
    assert block.k_norm is not None
    assert smoothed.k_norm is not None
    assert torch.equal(smoothed.k, block.k)
    ratios = block.k_norm / smoothed.k_norm
    torch.testing.assert_close(ratios[[2, 5, 18, 21]] / ratios[0], torch.tensor([10.0, 4, 10, 4]).double())


def test_search_takes_the_least(model: Any) -> None:
    _, blocks = read_weights(model)
    shape = shape_of(model)
    keys, queries = (
        torch.rand(shape.num_kv_heads, shape.head_dim),
        torch.rand(shape.num_heads, shape.head_dim),
    )
    seen: list[BlockWeights] = []

    def objective(block: BlockWeights) -> float:
        seen.append(block)
        return abs(len(seen) - wanted)

    for wanted in (1, 20, len(EXPONENTS)):
        seen.clear()
        found = search_attention_smoothing(blocks[0], shape, keys, queries, objective)
        assert found is seen[wanted - 1]
        assert len(seen) == len(EXPONENTS) == 39
    assert seen[0] is blocks[0]
    assert is_unchanged(model, [found, blocks[1]])
