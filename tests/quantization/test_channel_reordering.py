"""Reordered channels: the model computes what it did, and the order is that of the statistics."""

from typing import Any

import torch

from lapidist.quantization.channel_reordering import reorder_attention_outputs, reorder_mlp
from tests.quantization.transformers_weights import is_unchanged, read_weights, shape_of


def test_logits_stay(model: Any) -> None:
    _, blocks = read_weights(model)
    shape = shape_of(model)
    reordered = [
        reorder_mlp(
            reorder_attention_outputs(block, shape, torch.rand(shape.num_heads * shape.head_dim)),
            torch.rand(len(block.up)),
        )
        for block in blocks
    ]
    assert is_unchanged(model, reordered)
    assert not is_unchanged(model, [reordered[0].with_(o=blocks[0].o), reordered[1]])
    assert not is_unchanged(model, [reordered[0].with_(gate=blocks[0].gate), reordered[1]])


def test_mlp_channels_ascend(model: Any) -> None:
    _, (block, *_) = read_weights(model)
    statistics = torch.rand(len(block.up)).to(block.up)
    # Rows of up that hold their statistic show where each went.
    marked = block.with_(up=statistics[:, None].expand_as(block.up))
    assert torch.equal(reorder_mlp(marked, statistics).up[:, 0], statistics.sort().values)


def test_heads_that_share_values_share_the_order_of_their_largest(model: Any) -> None:
    _, (block, *_) = read_weights(model)
    shape = shape_of(model)
    statistics = torch.rand(shape.num_kv_heads, shape.group, shape.head_dim).to(block.o)
    marked = block.with_(o=statistics.flatten().expand_as(block.o))
    reordered = reorder_attention_outputs(marked, shape, statistics.flatten()).o[0].view_as(statistics)
    largest = reordered.amax(1)
    assert torch.equal(largest, statistics.amax(1).sort(dim=-1).values)
    assert torch.equal(reordered.sort(dim=-1).values, statistics.sort(dim=-1).values)


def test_equal_statistics_leave_the_order(model: Any) -> None:
    _, (block, *_) = read_weights(model)
    assert torch.equal(reorder_mlp(block, torch.zeros(len(block.up))).down, block.down)
