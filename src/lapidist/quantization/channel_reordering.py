"""Activation-aware channel reordering: channels of like magnitude come to share a group of weights.

QServe (arXiv 2405.04532), section 4.3.3. Only where the producer's rows can be permuted along, so that nothing is
gathered at run time: inputs of o, within each head, and of down.
"""

import torch
from torch import Tensor

from lapidist.quantization.block import BlockShape, BlockWeights
from lapidist.quantization.kv_heads import largest_per_kv_head


def reorder_attention_outputs(block: BlockWeights, shape: BlockShape, statistics: Tensor) -> BlockWeights:
    """Channels of a head in ascending order of how large o's inputs are.

    Parameters
    ----------
    statistics : ``[num_heads * head_dim]``, say the largest magnitude of each input of o. Heads that share values share
        an order too, by the largest of theirs.
    """
    order = largest_per_kv_head(statistics, shape).argsort(dim=-1, stable=True)
    rows = _flat_indices(order, shape.head_dim)
    columns = _flat_indices(order.repeat_interleave(shape.group, dim=0), shape.head_dim)
    return block.with_(
        v=block.v[rows],
        v_bias=None if block.v_bias is None else block.v_bias[rows],
        o=block.o[:, columns],
    )


def reorder_mlp(block: BlockWeights, statistics: Tensor) -> BlockWeights:
    """Channels between gate, up and down in ascending order of how large down's inputs are.

    Parameters
    ----------
    statistics : ``[intermediate_size]``, say the largest magnitude of each input of down.
    """
    order = statistics.argsort(stable=True)
    return block.with_(
        gate=block.gate[order],
        up=block.up[order],
        gate_bias=None if block.gate_bias is None else block.gate_bias[order],
        up_bias=None if block.up_bias is None else block.up_bias[order],
        down=block.down[:, order],
    )


def _flat_indices(order: Tensor, head_dim: int) -> Tensor:
    """Of ``[heads, head_dim]``, in which each row permutes a head."""
    return (order + torch.arange(len(order), device=order.device)[:, None] * head_dim).flatten()
