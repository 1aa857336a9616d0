"""Rows of 8-bit integers against the reference; the fused operators against one after the other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lapidist.kernels import reference
from lapidist.kernels.activation import ACTIVATIONS, gated_activation, quantized_gated_activation
from lapidist.kernels.norm import RMSNorm
from lapidist.kernels.quantized_rows import QuantizedRows, quantize_rows
from tests.kernels.thread_count import thread_count

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 1 << 30)
columns_strategy = st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 127, 128, 129, 255, 257, 400]))


def assert_same(found: QuantizedRows, expected: QuantizedRows) -> None:
    assert found.columns == expected.columns
    for name in ("codes", "scales", "sums"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 9),
    columns_strategy,
    dtypes,
    st.sampled_from(["dense", "apart", "transposed"]),
    st.integers(-30, 10),
    seeds,
)
def test_equals_the_reference(
    isa: str, rows: int, columns: int, dtype: torch.dtype, view: str, exponent: int, seed: int
) -> None:
    torch.manual_seed(seed)
    # Columns that belong to others are NaN: one that was read would show.
    wide = torch.full((rows, columns + 3), torch.nan, dtype=dtype)
    wide[:, 1:-2] = (torch.randn(rows, columns) * 2.0**exponent).to(dtype)
    x = wide[:, 1:-2]
    x = {"dense": x.contiguous(), "apart": x, "transposed": x.T.contiguous().T}[view]
    found = quantize_rows(x)
    codes, scales = reference.quantize_rows(x)
    assert len(found) == rows
    assert torch.equal(found.codes[:, :columns], codes)
    assert torch.equal(found.scales, scales)
    assert not found.codes[:, columns:].any()
    groups = [part.sum(1) for part in found.codes[:, :columns].int().split(128, 1)]
    assert torch.equal(found.sums, torch.stack(groups, 1).int())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), columns_strategy, dtypes, seeds)
def test_at_most_half_a_scale_off(rows: int, columns: int, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    x = (torch.randn(rows, columns) * torch.randn(rows, columns).exp2().square()).to(dtype)
    found = quantize_rows(x)
    scales = found.scales.double()[:, None]
    error = (found.codes[:, :columns].double() * scales - x.double()).abs()
    assert (error <= scales * (0.5 + 127 * 2.0**-23)).all()
    assert (found.codes.int().abs().amax(1) == 127).logical_or(x.abs().amax(1) < 1e-35).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_and_numbers_near_zero(isa: str, dtype: torch.dtype) -> None:
    x = torch.zeros(4, 130, dtype=dtype)
    x[1, 5] = torch.finfo(dtype).smallest_normal
    x[2, 129] = torch.finfo(torch.float32).smallest_normal / 64  # subnormal, or zero in float16
    found = quantize_rows(x)
    assert (found.scales > 0).all()
    assert found.dequantize().isfinite().all()
    assert not found.codes[0].any()
    assert ((found.dequantize() - x.float()).abs() <= found.scales[:, None] / 2).all()


def test_halves_are_rounded_to_even(isa: str) -> None:
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, 126.5] * 3])
    assert quantize_rows(x).codes[0, :8].tolist() == [127, 0, 2, 2, 0, -2, -126, 126]


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("column", [0, 99])
def test_what_is_not_finite_stays_in_its_row(isa: str, value: float, column: int) -> None:
    x = torch.randn(3, 100)
    alone = quantize_rows(x)
    x[1, column] = value
    found = quantize_rows(x)
    assert found.scales.isnan().tolist() == [False, True, False]
    assert not found.codes[1].any()
    assert not found.sums[1].any()
    assert torch.equal(found.codes[::2], alone.codes[::2])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), columns_strategy, st.sampled_from([0.0, 1.0]), dtypes, seeds)
def test_a_norm_is_quantized_as_float32(
    isa: str, rows: int, columns: int, offset: float, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    wide, weight = (torch.randn(rows, columns + 2) * 4).to(dtype), torch.randn(columns).to(dtype)
    norm, x = RMSNorm(weight, 1e-5, offset), wide[:, :columns]
    assert_same(norm.quantized(x), quantize_rows(norm(x.float())))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), columns_strategy, st.sampled_from(list(ACTIVATIONS)), dtypes, seeds)
def test_an_activation_is_quantized_as_float32(
    isa: str, rows: int, columns: int, activation: str, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    gate_up = (torch.randn(rows, 2 * columns) * 3).to(dtype)
    before = gate_up.clone()
    found = quantized_gated_activation(gate_up, activation)
    assert torch.equal(gate_up, before)
    assert_same(found, quantize_rows(gated_activation(gate_up.float(), activation)))


def test_threads_change_no_bit(isa: str) -> None:
    """Enough numbers to be shared out."""
    x, weight = torch.randn(65, 1100), torch.randn(1100)
    functions = (
        quantize_rows,
        RMSNorm(weight, 1e-6).quantized,
        lambda x: quantized_gated_activation(x, "silu"),
    )
    for function in functions:
        with thread_count(1):
            expected = function(x)
        with thread_count(3):
            assert_same(function(x), expected)


@pytest.mark.parametrize("columns", [1, 64, 65, 128, 2048, 4096, 11008])
def test_rows_are_an_odd_number_of_cache_lines(columns: int) -> None:
    rows = QuantizedRows(3, columns)
    assert columns <= rows.codes.shape[1] < columns + 128
    assert rows.codes.shape[1] % 128 == 64


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("columns", [1, 128, 129, 700])
def test_parts_lie_side_by_side(rows: int, columns: int) -> None:
    whole = QuantizedRows(rows, columns)
    parts = (whole.codes, whole.sums, whole.scales)
    assert [tuple(part.shape) for part in parts] == [
        (rows, whole.codes.shape[1]),
        (rows, -(-columns // 128)),
        (rows,),
    ]
    assert sum(part.nbytes for part in parts) == whole.memory.nbytes
    end = whole.address
    for part in parts:
        assert rows == 0 or part.data_ptr() == end
        end += part.nbytes


def quantizers() -> list[tuple[str, object]]:
    return [
        ("rows", quantize_rows),
        ("norm", RMSNorm(torch.ones(8), 1e-6).quantized),
        ("silu", lambda x: quantized_gated_activation(x, "silu")),
        ("gelu", lambda x: quantized_gated_activation(x, "gelu")),
    ]


@pytest.mark.parametrize(("name", "quantize"), quantizers())
def test_only_floats_on_the_cpu(name: str, quantize: object) -> None:
    assert callable(quantize)
    with pytest.raises(ValueError, match="run on the CPU only, and this tensor is on meta"):
        quantize(torch.zeros(2, 8, device="meta"))
    with pytest.raises(TypeError, match=r"not torch\.float64"):
        quantize(torch.zeros(2, 8, dtype=torch.float64))


def test_dequantized(isa: str) -> None:
    x: Tensor = torch.randn(5, 77)
    found = quantize_rows(x)
    assert found.dequantize().shape == x.shape
    assert (found.dequantize() - x).abs().max() <= found.scales.max() * 0.51
