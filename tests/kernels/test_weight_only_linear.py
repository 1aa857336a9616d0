"""Linear layers over quantized weights with floating-point activations against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lapidist.kernels import reference
from lapidist.kernels.weight_only_linear import WeightOnlyLinear
from tests.kernels.random_quantized_weight import FORMS, random_weight
from tests.kernels.thread_count import thread_count

# Of the largest output.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}
dtypes = st.sampled_from(list(TOLERANCES))
seeds = st.integers(0, 1 << 30)
rows_strategy = st.one_of(st.integers(1, 20), st.sampled_from([191, 192, 193, 400]))
columns_strategy = st.one_of(st.integers(1, 40), st.sampled_from([127, 128, 129, 255, 257, 384, 520]))
outputs_strategy = st.one_of(st.integers(1, 9), st.sampled_from([15, 63, 64, 65, 130]))


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(FORMS),
    rows_strategy,
    columns_strategy,
    outputs_strategy,
    dtypes,
    st.sampled_from(["dense", "apart", "transposed"]),
    st.booleans(),
    seeds,
)
def test_equals_the_reference(
    isa: str,
    form: str,
    rows: int,
    columns: int,
    outputs: int,
    dtype: torch.dtype,
    view: str,
    has_bias: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    # Columns that belong to others are NaN: one that was read would show.
    wide = torch.full((rows, columns + 3), torch.nan, dtype=dtype)
    wide[:, 1:-2] = torch.randn(rows, columns).to(dtype)
    x = wide[:, 1:-2]
    x = {"dense": x.contiguous(), "apart": x, "transposed": x.T.contiguous().T}[view]
    weight, bias = random_weight(form, outputs, columns), torch.randn(outputs).to(dtype) if has_bias else None
    found = WeightOnlyLinear(weight, bias, dtype)(x)
    assert found.shape == (rows, outputs)
    assert found.dtype == dtype
    ones = torch.ones(rows, dtype=torch.float64)
    expected = reference.quantized_linear(x.double(), ones, weight, bias)
    # The zero of a channel is subtracted from a sum that may be much larger.
    sizes = weight.integers().abs().float() * weight.scales.float()[:, None]
    terms = x.float().abs() @ sizes.T
    assert (found.double() - expected).abs().max() <= TOLERANCES[
        dtype
    ] * expected.abs().max() + 1e-6 * terms.max()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_row_does_not_depend_on_its_batch(isa: str, form: str, dtype: torch.dtype) -> None:
    linear = WeightOnlyLinear(random_weight(form, 70, 301), torch.randn(70), dtype)
    x = torch.randn(400, 301).to(dtype)
    whole = linear(x)
    for rows in (*range(1, 20), 191, 192, 193, 385):
        first = int(torch.randint(401 - rows, ()).item())
        assert torch.equal(linear(x[first : first + rows]), whole[first : first + rows])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_threads_change_no_bit(form: str, dtype: torch.dtype) -> None:
    linear, x = WeightOnlyLinear(random_weight(form, 300, 130), None, dtype), torch.randn(200, 130).to(dtype)
    with thread_count(1):
        expected = linear(x)
    for count in (2, 3, 5):
        with thread_count(count):
            assert torch.equal(linear(x), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_stays_in_its_row(isa: str, form: str, value: float) -> None:
    linear, x = WeightOnlyLinear(random_weight(form, 65, 33), None, torch.float32), torch.randn(5, 33)
    alone = linear(x)
    x[2, -1] = value
    found = linear(x)
    assert torch.equal(found[[0, 1, 3, 4]], alone[[0, 1, 3, 4]])
    assert not found[2].isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_no_rows(isa: str, form: str) -> None:
    found = WeightOnlyLinear(random_weight(form, 5, 8), None, torch.bfloat16)(
        torch.empty(0, 8, dtype=torch.bfloat16)
    )
    assert found.shape == (0, 5)
    assert found.dtype == torch.bfloat16


def test_what_does_not_fit() -> None:
    linear = WeightOnlyLinear(random_weight("groups", 3, 8), None, torch.float32)
    with pytest.raises(ValueError, match="x has 6 columns and does not fit the weight, which has 8"):
        linear(torch.zeros(2, 6))
    with pytest.raises(TypeError, match=r"x is torch\.bfloat16 and the layer is torch\.float32"):
        linear(torch.zeros(2, 8, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="run on the CPU only, and this tensor is on meta"):
        linear(torch.zeros(2, 8, device="meta"))
    with pytest.raises(TypeError, match=r"not torch\.float64"):
        WeightOnlyLinear(random_weight("groups", 3, 8), None, torch.float64)


@pytest.mark.parametrize("form", FORMS)
def test_flops_are_counted(form: str) -> None:
    linear = WeightOnlyLinear(random_weight(form, 30, 50), torch.randn(30), torch.float32)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        linear(torch.randn(7, 50))
    assert counter.get_total_flops() == 2 * 7 * 30 * 50
