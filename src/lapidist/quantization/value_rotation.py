"""Rotation of each head's values: o gets inputs without outlier channels, and so does the cache.

QuaRot (arXiv 2404.00456), section 4. Attention mixes tokens, never channels of a head, so what v's outputs are
multiplied by comes out in o's inputs. The same matrix for every head, which suits grouped queries.
"""

from lapidist.quantization.block import BlockShape, BlockWeights
from lapidist.quantization.hadamard import apply_hadamard


def rotate_values(block: BlockWeights, shape: BlockShape) -> BlockWeights:
    """v's outputs (and bias) and o's inputs are rotated head by head.

    Raises
    ------
    ValueError : no Hadamard matrix has the order ``head_dim``.
    """
    heads, kv_heads = (shape.num_heads, shape.head_dim), (shape.num_kv_heads, shape.head_dim)
    bias = block.v_bias
    return block.with_(
        v=apply_hadamard(block.v.unflatten(0, kv_heads), dim=1).flatten(0, 1),
        v_bias=None if bias is None else apply_hadamard(bias.unflatten(0, kv_heads)).flatten(),
        o=apply_hadamard(block.o.unflatten(1, heads)).flatten(1),
    )
