"""Progressive group quantization: its 8-bit integers hold every value there can be, and it loses next to nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import GROUP_SIZE
from lapidist.quantization.grid import Levels
from lapidist.quantization.progressive import (
    PROTECTIVE_RANGE,
    group_parameters,
    highest_codes,
    progressive_grid,
)
from tests.quantization.signal_to_noise import decibels, gaussian, heavy_tailed


def every_group(bound: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lowest, highest and each value between of all groups of integers up to plus and minus ``bound``."""
    span = torch.arange(-bound, bound + 1.0)
    lowest, highest, value = (axis.flatten() for axis in torch.meshgrid(span, span, span, indexing="ij"))
    inside = (lowest <= value) & (value <= highest)
    return lowest[inside], highest[inside], value[inside]


def subtracted_behind(lowest: Tensor, highest: Tensor, value: Tensor) -> Tensor:
    """Our form, ``code * step - zero``, with all sixteen codes."""
    steps, zeros = group_parameters(lowest, highest)
    levels = Levels(steps, zeros, torch.full_like(steps, 15.0), 0)
    return levels.values(levels.nearest_codes(value))


def subtracted_before(lowest: Tensor, highest: Tensor, value: Tensor) -> Tensor:
    """The form of the paper's text, ``(code - zero) * step``."""
    steps, _ = group_parameters(lowest, highest)
    zeros = (-lowest / steps).round().clamp(0, 15)
    return (((value / steps).round() + zeros).clamp(0, 15) - zeros) * steps


def test_within_the_protective_range_rounding_stays_in_eight_bits() -> None:
    assert PROTECTIVE_RANGE == 119
    groups = every_group(119)
    assert subtracted_behind(*groups).abs().max() == 126
    assert subtracted_before(*groups).abs().max() == 121


def groups_outside(groups: tuple[Tensor, Tensor, Tensor], found: Tensor) -> int:
    """How many groups have a value that does not fit eight signed bits."""
    lowest, highest, _ = (axis[(found > 127) | (found < -128)] for axis in groups)
    return len((lowest * 256 + highest).unique())


def test_beyond_the_protective_range_rounding_leaves_eight_bits() -> None:
    groups = every_group(120)
    found = subtracted_before(*groups)
    assert (found == -128).sum() == 8
    assert groups_outside(groups, found) == (found == 128).sum() == 7
    # The example of the paper.
    assert subtracted_before(*torch.tensor([-113.0, 120, 120]).split(1)) == 128
    # Our form has room for one more.
    assert groups_outside(groups, subtracted_behind(*groups)) == 0
    for bound, count in ((123, 20), (127, 207)):
        groups = every_group(bound)
        assert groups_outside(groups, subtracted_behind(*groups)) == count


def every_code() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lowest, highest, step and zero of all groups in the protective range."""
    span = torch.arange(-119, 120.0)
    lowest, highest = (axis.flatten() for axis in torch.meshgrid(span, span, indexing="ij"))
    lowest, highest = lowest[lowest <= highest], highest[lowest <= highest]
    return lowest, highest, *group_parameters(lowest, highest)


def test_parameters_fit_their_bytes() -> None:
    _, _, steps, zeros = every_code()
    assert steps.min() == 1
    assert steps.max() == 16
    assert zeros.abs().max() == 119


def test_codes_that_leave_eight_bits_are_out_of_reach() -> None:
    """Those that rounding to nearest never gives but GPTQ might."""
    _, _, steps, zeros = every_code()
    codes = torch.arange(16.0)[:, None]
    outside = (codes * steps - zeros > 127) | (codes * steps - zeros < -128)
    assert outside.sum() == 84
    assert outside.any(0).sum() == 28
    assert torch.equal(outside, codes > highest_codes(steps, zeros))


def test_unsigned_bytes_give_the_same_integers() -> None:
    """``code * step + (128 - zero)`` is a byte without a carry, and it is the integer plus 128 (arXiv 2509.01229)."""
    lowest, highest, value = every_group(119)
    steps, zeros = group_parameters(lowest, highest)
    codes = Levels(steps, zeros, highest_codes(steps, zeros), 0).nearest_codes(value)
    assert len(((lowest * 256 + highest) * 16 + codes).unique()) == 421_023
    product = codes * steps
    assert product.max() <= 255
    shifted = product + (128 - zeros)
    assert shifted.min() >= 0
    assert shifted.max() <= 255
    assert torch.equal(shifted.to(torch.uint8) ^ 128, (product - zeros).to(torch.int8).view(torch.uint8))


def test_arithmetic_that_wraps_around_gives_the_same_integers() -> None:
    """A stored byte times a stored byte minus a stored byte, modulo 256, wherever the result is eight signed bits."""
    codes, steps, zeros = torch.meshgrid(
        torch.arange(16), torch.arange(1, 17), torch.arange(-119, 120), indexing="ij"
    )
    exact = codes * steps - zeros
    wrapped = codes.to(torch.int8) * steps.to(torch.int8) - zeros.to(torch.int8)
    fits = (exact >= -128) & (exact <= 127)
    assert torch.equal(wrapped[fits].long(), exact[fits])
    assert not torch.equal(wrapped.long(), exact)


def direct(weight: Tensor) -> Tensor:
    """Ordinary groups of four bits: a float16 scale and a four-bit zero each."""
    groups = weight.unflatten(1, (-1, GROUP_SIZE))
    lowest, highest = groups.aminmax(dim=-1, keepdim=True)
    scales = ((highest - lowest) / 15).half().float()
    zeros = (-lowest / scales).round().clamp(0, 15)
    return ((((groups / scales).round() + zeros).clamp(0, 15) - zeros) * scales).flatten(1)


@pytest.mark.parametrize(
    ("weight", "expected", "loss"), [(gaussian, 19.95, 0.1), (heavy_tailed, 17.4, 0.3)], ids=["gaussian", "t"]
)
def test_hardly_less_exact_than_groups_with_scales_of_sixteen_bits(
    weight: Callable[[], Tensor], expected: float, loss: float
) -> None:
    exact = weight()
    found = decibels(exact, progressive_grid(exact).round_to_nearest(exact).dequantize())
    assert found > decibels(exact, direct(exact)) - loss
    assert found == pytest.approx(expected, abs=0.2)


@pytest.mark.parametrize("inputs", [256, 2048, 8192])
def test_bits_per_weight(inputs: int) -> None:
    weight = torch.randn(64, inputs)
    quantized = progressive_grid(weight).round_to_nearest(weight)
    assert 8 * quantized.byte_count / weight.numel() == 4.125 + 16 / inputs


def test_clipped_groups_have_smaller_steps() -> None:
    weight = torch.randn(6, 300)
    ratios = torch.ones(6, 3)
    ratios[2, 1] = 0.5
    whole, clipped = progressive_grid(weight), progressive_grid(weight, ratios)
    changed = whole.group_scales != clipped.group_scales
    assert changed.nonzero().tolist() == [[2, 1]]
    assert clipped.group_scales[2, 1] < whole.group_scales[2, 1]
