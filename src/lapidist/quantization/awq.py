"""AWQ (arXiv 2306.00978): channels with large activations get finer weights, by scales found in a grid search.

A baseline. Scales are powers of a channel's mean magnitude; the power is the one with which weights that are scaled,
rounded and scaled back give the least error of outputs.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from lapidist.quantization.block import BlockShape, BlockWeights
from lapidist.quantization.channel_scales import channel_scales
from lapidist.quantization.grid import Grid
from lapidist.quantization.kv_heads import largest_per_kv_head, spread_over_heads
from lapidist.quantization.linear_inputs import LinearInputs
from lapidist.quantization.output_error import OutputError, error_of_outputs
from lapidist.quantization.scale_folding import (
    scale_attention_inputs,
    scale_attention_outputs,
    scale_mlp_inputs,
    scale_mlp_outputs,
)

ALPHAS = tuple(step / 20 for step in range(20))
"""Exponents that are tried; zero leaves the weights as they are."""


def awq(
    block: BlockWeights, shape: BlockShape, samples: LinearInputs, make_grid: Callable[[Tensor], Grid]
) -> BlockWeights:
    """Inputs of all linear layers divided by scales, their weights multiplied.

    Parameters
    ----------
    samples : activations ``[tokens, channels]``, a few hundred tokens.
    make_grid : of the weights' quantization, such as ``progressive_grid``.
    """

    def search(inputs: Tensor, magnitudes: Tensor, *weights: Tensor) -> Tensor:
        return search_awq_scales(weights, magnitudes, error_of_outputs(inputs.to(block.q)), make_grid)

    # o and down first: their scales change rows of v and up, which the others then see.
    magnitudes = largest_per_kv_head(samples.o.abs().mean(0), shape)
    scales = search(samples.o, spread_over_heads(magnitudes, shape), block.o)
    block = scale_attention_outputs(block, shape, largest_per_kv_head(scales, shape))
    block = scale_mlp_outputs(block, search(samples.down, samples.down.abs().mean(0), block.down))
    block = scale_attention_inputs(
        block, search(samples.qkv, samples.qkv.abs().mean(0), block.q, block.k, block.v)
    )
    return scale_mlp_inputs(
        block, search(samples.gate_up, samples.gate_up.abs().mean(0), block.gate, block.up)
    )


def search_awq_scales(
    weights: Sequence[Tensor],
    magnitudes: Tensor,
    error: OutputError,
    make_grid: Callable[[Tensor], Grid],
    alphas: Sequence[float] = ALPHAS,
) -> Tensor:
    """``magnitudes ** alpha`` (with a geometric mean of one) for the best ``alpha``.

    Parameters
    ----------
    weights : matrices ``[outputs, inputs]`` that share their inputs.
    magnitudes : ``[inputs]``, the mean magnitude of each.
    """

    def total_error(scales: Tensor) -> float:
        rounded = (make_grid(weight * scales).nearest(weight * scales)[1] / scales for weight in weights)
        pairs = zip(rounded, weights, strict=True)
        return sum(error(values - weight).sum().item() for values, weight in pairs)

    return min((channel_scales(magnitudes, alpha) for alpha in alphas), key=total_error)
