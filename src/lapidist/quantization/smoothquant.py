"""SmoothQuant (arXiv 2211.10438): outliers of activations move to the weights until both are as easy to quantize.

A baseline. It shifts magnitude where QoQ rotates, so norms keep weights and the head stays tied.
"""

from lapidist.quantization.block import BlockShape, BlockWeights
from lapidist.quantization.channel_scales import channel_scales, column_maxima
from lapidist.quantization.linear_inputs import LinearInputs
from lapidist.quantization.output_smoothing import smooth_attention_output, smooth_mlp_output
from lapidist.quantization.scale_folding import scale_attention_inputs, scale_mlp_inputs


def smooth_quant(
    block: BlockWeights, shape: BlockShape, maxima: LinearInputs, alpha: float = 0.5
) -> BlockWeights:
    """Inputs of all linear layers divided by ``largest input ** alpha / largest weight ** (1 - alpha)``.

    Parameters
    ----------
    maxima : the largest magnitude of each channel.
    alpha : 0.5 in most models of the paper, up to 0.85 where outliers are worse.
    """
    beta = 1 - alpha
    qkv = channel_scales(maxima.qkv, alpha, column_maxima(block.q, block.k, block.v), beta)
    gate_up = channel_scales(maxima.gate_up, alpha, column_maxima(block.gate, block.up), beta)
    block = scale_mlp_inputs(scale_attention_inputs(block, qkv), gate_up)
    block = smooth_attention_output(block, shape, maxima.o, alpha, beta)
    return smooth_mlp_output(block, maxima.down, alpha, beta)
