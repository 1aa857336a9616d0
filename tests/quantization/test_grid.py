"""Levels of weights: nearest codes, packing, and weights at the edges."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lapidist.quantization.eight_bit import eight_bit_grid
from lapidist.quantization.grid import Grid
from lapidist.quantization.per_channel import per_channel_grid
from lapidist.quantization.progressive import progressive_grid

MAKERS = [progressive_grid, per_channel_grid, eight_bit_grid]
makers = st.sampled_from(MAKERS)
seeds = st.integers(0, 1 << 30)


@settings(max_examples=60, deadline=None)
@given(
    make_grid=makers,
    outputs=st.integers(1, 9),
    inputs=st.one_of(st.integers(1, 9), st.sampled_from([127, 128, 129, 300])),
    exponent=st.integers(-6, 4),
    clip_ratio=st.sampled_from([1.0, 0.6]),
    seed=seeds,
)
def test_codes_are_the_nearest_and_packing_keeps_them(
    make_grid: Callable[..., Grid], outputs: int, inputs: int, exponent: int, clip_ratio: float, seed: int
) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(outputs, inputs) * 10.0**exponent
    grid = make_grid(weight, clip_ratio)
    codes, values = grid.nearest(weight)
    packed = grid.pack(codes)
    assert torch.equal(packed.unpacked_codes().float(), codes)
    assert torch.equal(packed.dequantize(), values)
    levels = grid.at(torch.arange(inputs))
    every = torch.arange(levels.lowest, 128 if levels.lowest else 16)[:, None, None]
    distances = (levels.values(every.float()) - weight).abs().where(every <= levels.highest, torch.inf)
    slack = 1e-5 * levels.steps
    assert ((values - weight).abs() <= distances.amin(0) + slack).all()


@pytest.mark.parametrize("make_grid", MAKERS)
def test_rows_of_zeros_and_tiny_rows(make_grid: Callable[[Tensor], Grid]) -> None:
    weight = torch.zeros(3, 200)
    weight[1] = torch.randn(200) * 1e-9
    weight[2] = torch.randn(200)
    found = make_grid(weight).round_to_nearest(weight).dequantize()
    assert torch.equal(found[0], weight[0])
    assert (found[1] - weight[1]).abs().max() < 1e-7
    assert (found[2] - weight[2]).abs().max() < 0.5


@pytest.mark.parametrize("make_grid", MAKERS)
def test_a_constant_row_is_kept(make_grid: Callable[[Tensor], Grid]) -> None:
    weight = torch.tensor([0.75, -0.0625])[:, None].expand(2, 150)
    found = make_grid(weight).round_to_nearest(weight).dequantize()
    torch.testing.assert_close(found, weight, rtol=1e-3, atol=0)


@pytest.mark.parametrize("make_grid", MAKERS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e8])
def test_weights_beyond_float16_scales_are_refused(make_grid: Callable[[Tensor], Grid], bad: float) -> None:
    weight = torch.randn(3, 10)
    weight[1, 4] = bad
    with pytest.raises(ValueError, match="do not fit float16"):
        make_grid(weight)


@pytest.mark.parametrize("make_grid", MAKERS)
def test_a_matrix_without_rows(make_grid: Callable[[Tensor], Grid]) -> None:
    weight = torch.empty(0, 130)
    assert make_grid(weight).round_to_nearest(weight).dequantize().shape == (0, 130)
