"""The passes of a recipe over one layer, in their order."""

from collections.abc import Callable, Mapping

from lapidist.quantization.attention_smoothing import search_attention_smoothing, smooth_attention
from lapidist.quantization.awq import awq
from lapidist.quantization.block import BlockShape, BlockWeights, EndWeights
from lapidist.quantization.channel_reordering import reorder_attention_outputs, reorder_mlp
from lapidist.quantization.linear_inputs import LinearInputs
from lapidist.quantization.norm_folding import fold_final_norm, fold_norms
from lapidist.quantization.output_smoothing import smooth_mlp_output
from lapidist.quantization.recipe import Recipe
from lapidist.quantization.rotation import rotate_block, rotate_ends
from lapidist.quantization.rounding import grid_maker
from lapidist.quantization.smoothquant import smooth_quant
from lapidist.quantization.statistics import AttentionStatistics, InputStatistics
from lapidist.quantization.value_rotation import rotate_values


def rotate(block: BlockWeights, shape: BlockShape, recipe: Recipe) -> BlockWeights:
    """What needs no activations.

    Raises
    ------
    ValueError : the model cannot be rotated; one sentence that says why.
    """
    if recipe.rotation:
        block = rotate_block(fold_norms(block))
    return rotate_values(block, shape) if recipe.value_rotation else block


def rotate_rows(ends: EndWeights, recipe: Recipe) -> EndWeights:
    """The same for the ends of the model, or some rows of their matrices."""
    return rotate_ends(fold_final_norm(ends)) if recipe.rotation else ends


def smooth(
    block: BlockWeights,
    shape: BlockShape,
    recipe: Recipe,
    inputs: Mapping[str, InputStatistics],
    attention: AttentionStatistics,
    attention_error: Callable[[BlockWeights], float],
) -> BlockWeights:
    """What looks at activations, of ``block`` as it is given. That suffices for all: no recipe scales one input twice,
    and an order of channels does not depend on their scales."""
    maxima = LinearInputs(**{name: each.maxima for name, each in inputs.items()})
    if recipe.smoothquant is not None:
        block = smooth_quant(block, shape, maxima, recipe.smoothquant.alpha)
    if recipe.awq:
        samples = LinearInputs(**{name: each.samples for name, each in inputs.items()})
        make_grid = grid_maker(recipe.weights)
        block = awq(block, shape, samples, lambda weight: make_grid(weight, 1.0))
    if recipe.output_smoothing is not None:
        smoothing = recipe.output_smoothing
        block = smooth_mlp_output(block, maxima.down, smoothing.alpha, smoothing.beta)
    keys, queries = attention.key_maxima, attention.query_maxima
    if recipe.attention_smoothing is not None and recipe.attention_smoothing.search:
        block = search_attention_smoothing(block, shape, keys, queries, attention_error)
    elif recipe.attention_smoothing is not None:
        block = smooth_attention(block, shape, keys, recipe.attention_smoothing.alpha)
    if recipe.reordering:
        block = reorder_mlp(reorder_attention_outputs(block, shape, maxima.o), maxima.down)
    return block
