"""Flat GEMM and GEMV in Triton against the plain reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="Triton is not installed")

from lapidist.kernels import reference
from lapidist.kernels.triton.linear import flat_linear, gemv
from lapidist.kernels.triton.workspace import Workspace
from tests.kernels.triton.paged_case import DEVICE, relative_error

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
columns = st.one_of(st.integers(1, 20), st.integers(21, 200))
channels = st.one_of(st.integers(1, 40), st.sampled_from([128, 256, 512]), st.integers(41, 1500))
dtypes = st.sampled_from(list(TOLERANCES))
seeds = st.integers(0, 1 << 30)


def tensors(rows: int, n: int, k: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [torch.randn(shape).to(DEVICE, dtype) for shape in ((rows, k), (n, k), (n,))]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 64), columns, channels, st.booleans(), st.sampled_from([None, 1, 2, 7]), dtypes, seeds)
def test_flat_linear(
    rows: int, n: int, k: int, has_bias: bool, splits: int | None, dtype: torch.dtype, seed: int
) -> None:
    x, weight, bias = tensors(rows, n, k, dtype, seed)
    found = flat_linear(x, weight, bias if has_bias else None, splits=splits)
    assert (found.shape, found.dtype) == ((rows, n), dtype)
    expected = reference.linear(x.cpu(), weight.cpu(), bias.cpu() if has_bias else None)
    assert relative_error(found, expected) < TOLERANCES[dtype]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 60), channels, st.booleans(), dtypes, seeds)
def test_gemv(rows: int, n: int, k: int, has_bias: bool, dtype: torch.dtype, seed: int) -> None:
    x, weight, bias = tensors(rows, n, k, dtype, seed)
    found = gemv(x, weight, bias if has_bias else None)
    assert (found.shape, found.dtype) == ((rows, n), dtype)
    expected = reference.linear(x.cpu(), weight.cpu(), bias.cpu() if has_bias else None)
    assert relative_error(found, expected) < TOLERANCES[dtype]


@pytest.mark.parametrize("rows", [*range(1, 18), 33])
def test_nothing_is_written_beside_the_rows(rows: int) -> None:
    x, weight, _ = tensors(rows, 70, 100, torch.float32, rows)
    expected = reference.linear(x.cpu(), weight.cpu())
    for multiply in (flat_linear, gemv)[: 2 if rows <= 4 else 1]:
        whole = torch.full((rows + 2, 80), float("nan"), device=DEVICE)
        out = whole[1:-1, 5:75]
        assert multiply(x, weight, out=out) is out
        assert relative_error(out, expected) < 1e-5
        assert whole.isnan().sum() == whole.numel() - out.numel()


def test_rows_may_have_strides() -> None:
    x, weight, bias = tensors(3, 40, 90, torch.float32, 5)
    wide_x, wide_weight = x.new_full((3, 100), float("nan")), x.new_full((40, 120), float("nan"))
    wide_x[:, :90], wide_weight[:, :90] = x, weight
    for multiply in (flat_linear, gemv):
        assert torch.equal(multiply(wide_x[:, :90], wide_weight[:, :90], bias), multiply(x, weight, bias))


def test_splits_agree_and_repeat() -> None:
    x, weight, bias = tensors(5, 130, 1500, torch.float32, 7)
    workspace = Workspace(3, DEVICE)
    plain = flat_linear(x, weight, bias, splits=1).cpu().double()
    for splits in (2, 3, 24):
        first, second = (flat_linear(x, weight, bias, splits=splits, workspace=workspace) for _ in range(2))
        assert torch.equal(first, second)
        assert relative_error(first, plain) < 2e-6
    assert not workspace.counters(3).any()


@pytest.mark.parametrize("multiply", [flat_linear, gemv])
def test_no_rows(multiply: type[flat_linear]) -> None:
    assert multiply(torch.empty(0, 8, device=DEVICE), torch.randn(5, 8, device=DEVICE)).shape == (0, 5)


def test_what_they_cannot_do_is_an_error() -> None:
    x, weight, _ = tensors(65, 20, 30, torch.float32, 0)
    with pytest.raises(ValueError, match="at most 64 rows"):
        flat_linear(x, weight)
    with pytest.raises(ValueError, match="at most 4 rows"):
        gemv(x[:5], weight)
    with pytest.raises(ValueError, match="fit together"):
        flat_linear(x[:4, :7], weight)
    with pytest.raises(ValueError, match="float64"):
        flat_linear(x[:4].double(), weight)
    with pytest.raises(ValueError, match="contiguous"):
        gemv(x[:4], weight.T.contiguous().T)
