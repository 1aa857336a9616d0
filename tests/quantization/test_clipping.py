"""Clip ratios: never worse than none, and the best of those tried."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import GROUP_SIZE
from lapidist.quantization.clipping import CLIP_RATIOS, search_clip_ratios
from lapidist.quantization.eight_bit import eight_bit_grid
from lapidist.quantization.grid import Grid
from lapidist.quantization.output_error import OutputError, error_of_groups, error_of_outputs
from lapidist.quantization.per_channel import per_channel_grid
from lapidist.quantization.progressive import progressive_grid
from tests.quantization.correlated_inputs import correlated_inputs
from tests.quantization.signal_to_noise import heavy_tailed


def by_outputs(x: Tensor) -> OutputError:
    return error_of_outputs(x)


def by_groups(x: Tensor) -> OutputError:
    return error_of_groups(x.T @ x, GROUP_SIZE)


FORMS = [(per_channel_grid, by_outputs), (eight_bit_grid, by_outputs), (progressive_grid, by_groups)]


@pytest.mark.parametrize(("make_grid", "error_for"), FORMS)
def test_never_worse_than_without(
    make_grid: Callable[..., Grid], error_for: Callable[[Tensor], OutputError]
) -> None:
    # More rows than are searched at a time, and a short last group.
    weight, error = heavy_tailed()[:300, :330], error_for(correlated_inputs(120, 330))
    ratios = search_clip_ratios(weight, make_grid, error, (0.9, 0.8, 0.5))
    clipped = error(make_grid(weight, ratios).nearest(weight)[1] - weight)
    whole = error(make_grid(weight).nearest(weight)[1] - weight)
    assert ratios.shape == whole.shape
    assert (clipped <= whole * (1 + 1e-5)).all()
    if make_grid is not eight_bit_grid:
        assert clipped.sum() < 0.95 * whole.sum()


@pytest.mark.parametrize(("make_grid", "error_for"), FORMS)
def test_the_best_of_the_ratios_is_found(
    make_grid: Callable[..., Grid], error_for: Callable[[Tensor], OutputError]
) -> None:
    weight, error = heavy_tailed()[:40, :256], error_for(correlated_inputs(120, 256))
    tried = (1.0, 0.95, 0.7, 0.4)
    errors = torch.stack([error(make_grid(weight, ratio).nearest(weight)[1] - weight) for ratio in tried])
    found = search_clip_ratios(weight, make_grid, error, tried[1:])
    chosen = errors.gather(0, torch.stack([found == ratio for ratio in tried]).byte().argmax(0)[None])[0]
    torch.testing.assert_close(chosen, errors.amin(0))


def test_outliers_whose_inputs_are_next_to_nothing_are_clipped() -> None:
    weight, x = torch.randn(3, 512), torch.randn(200, 512)
    weight[1, 100], weight[1, 101] = 40.0, -40.0
    x[:, 100:102] *= 1e-3
    ratios = search_clip_ratios(weight, per_channel_grid, error_of_outputs(x))
    assert ratios[1] < 0.3
    assert (ratios[[0, 2]] > 0.5).all()


def test_the_ratios_span_the_range_of_the_paper() -> None:
    """But for 1, with which the search begins."""
    assert len(CLIP_RATIOS) == 16
    assert CLIP_RATIOS[0] == pytest.approx(0.95)
    assert CLIP_RATIOS[-1] == pytest.approx(0.2)
