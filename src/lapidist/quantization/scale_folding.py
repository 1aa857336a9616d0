"""Inputs of linear layers divided by scales, their weights multiplied: the model computes the same.

The division is folded into what produces the inputs: a norm, v, or up (a gated activation is linear in up).
"""

from torch import Tensor

from lapidist.quantization.block import BlockShape, BlockWeights
from lapidist.quantization.kv_heads import spread_over_heads


def scale_attention_inputs(block: BlockWeights, scales: Tensor) -> BlockWeights:
    """Inputs of q, k and v by ``[hidden_size]``, folded into ``input_norm``."""
    return block.with_(
        input_norm=block.input_norm / scales, q=block.q * scales, k=block.k * scales, v=block.v * scales
    )


def scale_attention_outputs(block: BlockWeights, shape: BlockShape, scales: Tensor) -> BlockWeights:
    """Inputs of o by ``[num_kv_heads, head_dim]``, folded into v: heads that share values share scales."""
    rows = scales.flatten()
    return block.with_(
        v=block.v / rows[:, None],
        v_bias=None if block.v_bias is None else block.v_bias / rows,
        o=block.o * spread_over_heads(scales, shape),
    )


def scale_mlp_inputs(block: BlockWeights, scales: Tensor) -> BlockWeights:
    """Inputs of gate and up by ``[hidden_size]``, folded into ``pre_mlp_norm``."""
    return block.with_(
        pre_mlp_norm=block.pre_mlp_norm / scales, gate=block.gate * scales, up=block.up * scales
    )


def scale_mlp_outputs(block: BlockWeights, scales: Tensor) -> BlockWeights:
    """Inputs of down by ``[intermediate_size]``, folded into up."""
    return block.with_(
        up=block.up / scales[:, None],
        up_bias=None if block.up_bias is None else block.up_bias / scales,
        down=block.down * scales,
    )
