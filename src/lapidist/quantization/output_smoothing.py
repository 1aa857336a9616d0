"""Block-output smoothing: inputs of down, and of o, are evened out (QServe, arXiv 2405.04532, section 4.3.2).

``scale = largest input ** alpha / largest weight ** beta`` for each channel. Unlike in SmoothQuant alpha is near zero
and beta near one: weights of four bits are what needs help.
"""

from torch import Tensor

from lapidist.quantization.block import BlockShape, BlockWeights
from lapidist.quantization.channel_scales import channel_scales, column_maxima
from lapidist.quantization.kv_heads import largest_per_kv_head
from lapidist.quantization.scale_folding import scale_attention_outputs, scale_mlp_outputs


def smooth_mlp_output(block: BlockWeights, maxima: Tensor, alpha: float, beta: float) -> BlockWeights:
    """Inputs of down.

    Parameters
    ----------
    maxima : ``[intermediate_size]``, the largest magnitude of each input of down.
    """
    return scale_mlp_outputs(block, channel_scales(maxima, alpha, column_maxima(block.down), beta))


def smooth_attention_output(
    block: BlockWeights, shape: BlockShape, maxima: Tensor, alpha: float, beta: float
) -> BlockWeights:
    """Inputs of o; of no use after the rotation of values, which evens them out better.

    Parameters
    ----------
    maxima : ``[num_heads * head_dim]``, the largest magnitude of each input of o.
    """
    activations, weights = (
        largest_per_kv_head(statistics, shape) for statistics in (maxima, column_maxima(block.o))
    )
    scales = channel_scales(activations.flatten(), alpha, weights.flatten(), beta)
    return scale_attention_outputs(block, shape, scales.view_as(activations))
