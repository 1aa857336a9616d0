"""Scales folded into producers: the model computes what it did, whatever the scales."""

from typing import Any

import torch
from torch import Tensor

from lapidist.quantization.block import BlockShape, BlockWeights
from lapidist.quantization.scale_folding import (
    scale_attention_inputs,
    scale_attention_outputs,
    scale_mlp_inputs,
    scale_mlp_outputs,
)
from tests.quantization.transformers_weights import is_unchanged, read_weights, shape_of


def random_scales(*shape: int) -> Tensor:
    return torch.randn(shape).exp()


def scaled(block: BlockWeights, shape: BlockShape) -> BlockWeights:
    hidden_size = block.q.shape[1]
    block = scale_attention_inputs(block, random_scales(hidden_size))
    block = scale_attention_outputs(block, shape, random_scales(shape.num_kv_heads, shape.head_dim))
    block = scale_mlp_inputs(block, random_scales(hidden_size))
    return scale_mlp_outputs(block, random_scales(len(block.up)))


def test_logits_stay(model: Any) -> None:
    _, blocks = read_weights(model)
    changed = [scaled(block, shape_of(model)) for block in blocks]
    assert is_unchanged(model, changed)
    for name, tensor in changed[0].tensors().items():
        if name in ("q", "k", "v", "o", "gate", "up", "down", "input_norm", "pre_mlp_norm"):
            assert not is_unchanged(
                model, [changed[0].with_(**{name: blocks[0].tensors()[name]}), changed[1]]
            ), name
            assert not torch.equal(tensor, blocks[0].tensors()[name])
