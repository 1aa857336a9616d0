"""From a matrix of floats to a quantized one, as a recipe has it: grid, clipping, rounding."""

from collections.abc import Callable

from torch import Tensor

from lapidist.kernels.quantized_weight import GROUP_SIZE, QuantizedWeight
from lapidist.quantization.clipping import search_clip_ratios
from lapidist.quantization.eight_bit import eight_bit_grid
from lapidist.quantization.gptq import gptq
from lapidist.quantization.grid import Grid
from lapidist.quantization.output_error import error_of_groups, error_of_outputs
from lapidist.quantization.per_channel import per_channel_grid
from lapidist.quantization.progressive import progressive_grid
from lapidist.quantization.recipe import Weights
from lapidist.quantization.statistics import InputStatistics


def grid_maker(recipe: Weights) -> Callable[[Tensor, Tensor | float], Grid]:
    """Of the recipe's form of weights."""
    if recipe.bits == 8:
        return eight_bit_grid
    return per_channel_grid if recipe.group_size is None else progressive_grid


def needs_inputs(recipe: Weights) -> bool:
    """Whether rounding looks at activations."""
    return recipe.clip or recipe.rounding == "gptq"


def needs_hessian(recipe: Weights) -> bool:
    return recipe.rounding == "gptq" or (recipe.clip and recipe.group_size is not None)


def round_weight(weight: Tensor, recipe: Weights, inputs: InputStatistics | None) -> QuantizedWeight:
    """Round ``[outputs, inputs]``.

    Parameters
    ----------
    inputs : of the activations, where the recipe looks at them.

    Raises
    ------
    ValueError : the weights or the activations are not finite.
    """
    make_grid = grid_maker(recipe)
    hessian = None if inputs is None else inputs.hessian
    ratios: Tensor | float = 1.0
    if recipe.clip:
        assert inputs is not None
        if recipe.group_size is None:
            error = error_of_outputs(inputs.samples)
        else:
            assert hessian is not None
            error = error_of_groups(hessian, GROUP_SIZE)
        ratios = search_clip_ratios(weight, make_grid, error)
    grid = make_grid(weight, ratios)
    if recipe.rounding == "nearest":
        return grid.round_to_nearest(weight)
    assert hessian is not None
    return gptq(weight, hessian, grid)
