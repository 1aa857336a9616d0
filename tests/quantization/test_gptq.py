"""GPTQ against the algorithm as it is written, and against rounding to nearest."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import QuantizedWeight
from lapidist.quantization.eight_bit import eight_bit_grid
from lapidist.quantization.gptq import DAMPING, gptq
from lapidist.quantization.grid import Grid
from lapidist.quantization.per_channel import per_channel_grid
from lapidist.quantization.progressive import progressive_grid
from tests.quantization.correlated_inputs import correlated_inputs

MAKERS = [progressive_grid, per_channel_grid, eight_bit_grid]


def output_error(quantized: QuantizedWeight, weight: Tensor, inputs: Tensor) -> float:
    return float(((quantized.dequantize() - weight) @ inputs.T).square().sum())


def written_out(weight: Tensor, hessian: Tensor, grid: Grid) -> Tensor:
    """Codes by optimal brain surgery in double precision: each step inverts the Hessian of the columns that remain."""
    hessian = hessian.double() + DAMPING * hessian.diagonal().mean().double() * torch.eye(len(hessian))
    weight, codes = weight.double().clone(), torch.empty_like(weight)
    order = hessian.diagonal().argsort(descending=True, stable=True)
    for done, column in enumerate(order.tolist()):
        remaining = order[done:]
        inverse = torch.linalg.inv(hessian[remaining][:, remaining])
        levels = grid.at(torch.tensor([column]))
        codes[:, column] = levels.nearest_codes(weight[:, column : column + 1])[:, 0].float()
        error = weight[:, column] - levels.values(codes[:, column : column + 1])[:, 0]
        weight[:, remaining] -= error[:, None] * inverse[0] / inverse[0, 0]
    return codes


@pytest.mark.parametrize("make_grid", MAKERS)
@pytest.mark.parametrize("inputs", [1, 7, 150])
def test_equals_the_algorithm_as_it_is_written(make_grid: Callable[[Tensor], Grid], inputs: int) -> None:
    weight, x = torch.randn(60, inputs), correlated_inputs(3 * inputs + 5, inputs)
    grid = make_grid(weight)
    found = gptq(weight, x.T @ x, grid).unpacked_codes()
    same = found == written_out(weight, x.T @ x, grid)
    # A weight halfway between two codes may go either way, and takes its row along.
    assert same.all(1).float().mean() > 0.9


@pytest.mark.parametrize("make_grid", MAKERS)
@pytest.mark.parametrize("shape", [(33, 40), (64, 300), (8, 513)])
def test_outputs_are_nearer_than_by_rounding_to_nearest(
    make_grid: Callable[[Tensor], Grid], shape: tuple[int, int]
) -> None:
    weight, x = torch.randn(shape), correlated_inputs(3 * shape[1], shape[1])
    grid = make_grid(weight)
    nearest = output_error(grid.round_to_nearest(weight), weight, x)
    assert output_error(gptq(weight, x.T @ x, grid), weight, x) < 0.9 * nearest


@pytest.mark.parametrize("make_grid", MAKERS)
def test_uncorrelated_inputs_leave_rounding_to_nearest(make_grid: Callable[[Tensor], Grid]) -> None:
    weight = torch.randn(20, 200)
    grid = make_grid(weight)
    for hessian in (torch.diag(torch.rand(200) + 0.1), torch.zeros(200, 200)):
        assert torch.equal(gptq(weight, hessian, grid).codes, grid.round_to_nearest(weight).codes)


def test_integers_stay_in_eight_bits_however_far_weights_are_moved() -> None:
    """All groups in which the highest of sixteen codes would not, with weights far above those of the grid."""
    pairs = [(lowest, highest) for lowest in range(-119, 120) for highest in range(lowest, 120)]
    lowest, highest = torch.tensor(pairs, dtype=torch.float32).T
    leaves = ((highest - lowest) / 15).round().clamp(min=1) * 15 + lowest > 127
    assert leaves.sum() == 28
    weight = torch.zeros(28, 256)
    weight[:, 0] = 119
    weight[:, 128:] = lowest[leaves][:, None]
    weight[:, -1] = highest[leaves]
    grid = progressive_grid(weight)
    x = correlated_inputs(800, 256)
    for away in (100.0, -300.0):
        integers = gptq(weight + away, x.T @ x, grid).integers()
        assert integers.min() >= -128
        assert integers.max() <= 127
    highest_integers = gptq(weight + 100.0, torch.eye(256), grid).integers()[:, 128:]
    assert (highest_integers == 127).all()


def test_inputs_that_are_always_zero() -> None:
    weight, x = torch.randn(20, 50), correlated_inputs(200, 50)
    x[:, 10:20] = 0.0
    grid = per_channel_grid(weight)
    found, nearest = gptq(weight, x.T @ x, grid), grid.round_to_nearest(weight)
    assert torch.equal(found.unpacked_codes()[:, 10:20], nearest.unpacked_codes()[:, 10:20])
    assert output_error(found, weight, x) < output_error(nearest, weight, x)


def test_the_hessians_scale_does_not_matter() -> None:
    weight, x = torch.randn(20, 50), correlated_inputs(200, 50)
    grid = progressive_grid(weight)
    codes = gptq(weight, x.T @ x, grid).codes
    for scale in (2.0**-40, 2.0**40):
        assert torch.equal(gptq(weight, x.T @ x * scale, grid).codes, codes)


def test_fewer_tokens_than_inputs() -> None:
    weight, x = torch.randn(20, 200), correlated_inputs(30, 200)
    grid = per_channel_grid(weight)
    nearest = output_error(grid.round_to_nearest(weight), weight, x)
    assert output_error(gptq(weight, x.T @ x, grid), weight, x) < 0.5 * nearest


def test_damping_grows_until_the_hessian_is_positive() -> None:
    weight, x = torch.randn(20, 60), correlated_inputs(200, 60)
    hessian = x.T @ x
    hessian -= hessian.diagonal().mean() * 0.05 * torch.eye(60)
    assert torch.linalg.eigvalsh(hessian).min() < 0
    grid = per_channel_grid(weight)
    nearest = output_error(grid.round_to_nearest(weight), weight, x)
    assert output_error(gptq(weight, hessian, grid), weight, x) < nearest


def test_what_is_passed_in_stays() -> None:
    weight, x = torch.randn(20, 60), correlated_inputs(200, 60)
    hessian = x.T @ x
    copies = weight.clone(), hessian.clone()
    gptq(weight, hessian, progressive_grid(weight))
    assert torch.equal(weight, copies[0])
    assert torch.equal(hessian, copies[1])


@pytest.mark.parametrize(("value", "problem"), [(torch.nan, "NaN or infinity"), (-1e6, "not positive")])
def test_a_broken_hessian_is_refused(value: float, problem: str) -> None:
    weight, hessian = torch.randn(3, 5), torch.eye(5)
    hessian[2, 2] = value
    with pytest.raises(ValueError, match=problem):
        gptq(weight, hessian, per_channel_grid(weight))
