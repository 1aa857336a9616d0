"""Rotated values: the model computes what it did."""

from typing import Any

import torch

from lapidist.quantization.value_rotation import rotate_values
from tests.quantization.transformers_weights import is_unchanged, read_weights, shape_of


def test_logits_stay(model: Any) -> None:
    _, blocks = read_weights(model)
    rotated = [rotate_values(block, shape_of(model)) for block in blocks]
    assert not torch.equal(rotated[0].v, blocks[0].v)
    assert is_unchanged(model, rotated)
    assert not is_unchanged(model, [rotated[0].with_(o=blocks[0].o), rotated[1]])


def test_an_outlier_of_one_head_stays_in_it(model: Any) -> None:
    _, (block, *_) = read_weights(model)
    shape = shape_of(model)
    v = torch.zeros_like(block.v)
    v[shape.head_dim + 3] = 1.0
    rotated = rotate_values(block.with_(v=v), shape).v.unflatten(0, (shape.num_kv_heads, shape.head_dim))
    expected = torch.zeros_like(rotated)
    expected[1] = shape.head_dim**-0.5
    torch.testing.assert_close(rotated.abs(), expected)
