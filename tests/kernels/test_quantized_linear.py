"""Linear layers over quantized weights: the integers exact, what follows them close to float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lapidist.kernels import reference
from lapidist.kernels.cpu.quantized_linear import multiply_integers, pack_weight, weight_form
from lapidist.kernels.quantized_linear import QuantizedLinear
from lapidist.kernels.quantized_rows import QuantizedRows, quantize_rows
from lapidist.kernels.quantized_weight import GROUP_SIZE, QuantizedWeight, pack_nibbles
from tests.kernels.random_quantized_weight import FORMS, random_weight
from tests.kernels.thread_count import thread_count

# Of the largest output.
TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}
GUARD = -12345
dtypes = st.sampled_from(list(TOLERANCES))
seeds = st.integers(0, 1 << 30)
rows_strategy = st.one_of(st.integers(1, 20), st.sampled_from([33, 128, 191, 192, 193, 400]))
columns_strategy = st.one_of(st.integers(1, 40), st.sampled_from([127, 128, 129, 255, 257, 384, 520, 700]))
outputs_strategy = st.one_of(st.integers(1, 9), st.sampled_from([15, 63, 64, 65, 130]))


def sums_of(rows: QuantizedRows, weight: QuantizedWeight) -> Tensor:
    """The integers behind the result; nothing is written beside them."""
    memory = torch.full((len(rows) + 2, weight.out_features), GUARD, dtype=torch.int32)
    out = memory[1:-1]
    multiply_integers(weight_form(weight), pack_weight(weight), rows.columns, rows.address, out)
    assert (memory[[0, -1]] == GUARD).all()
    return out


def rows_of_codes(codes: Tensor) -> QuantizedRows:
    """Rows that are quantized to these codes, one of which is 127 or -127 in each."""
    rows = quantize_rows(codes.float())
    assert torch.equal(rows.codes[:, : rows.columns], codes)
    return rows


def exact(rows: QuantizedRows, weight: QuantizedWeight, bias: Tensor | None = None) -> Tensor:
    return reference.quantized_linear(rows.codes[:, : rows.columns], rows.scales, weight, bias)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FORMS), rows_strategy, columns_strategy, outputs_strategy, seeds)
def test_integers_are_exact(isa: str, form: str, rows: int, columns: int, outputs: int, seed: int) -> None:
    torch.manual_seed(seed)
    weight, x = random_weight(form, outputs, columns), quantize_rows(torch.randn(rows, columns))
    expected = reference.quantized_sums(x.codes[:, :columns], weight)
    assert torch.equal(sums_of(x, weight).long(), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33, 128])
def test_integers_of_a_long_row_are_exact(isa: str, form: str, rows: int) -> None:
    weight, x = random_weight(form, 67, 4099), quantize_rows(torch.randn(rows, 4099))
    assert torch.equal(sums_of(x, weight).long(), reference.quantized_sums(x.codes[:, :4099], weight))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_integers_of_many_rows_are_exact(isa: str, form: str) -> None:
    weight, x = random_weight(form, 130, 200), quantize_rows(torch.randn(4096, 200))
    with thread_count(2):
        assert torch.equal(sums_of(x, weight).long(), reference.quantized_sums(x.codes[:, :200], weight))


def extreme_weights(columns: int) -> dict[str, QuantizedWeight]:
    """All codes at one end of their range, and group parameters at theirs."""
    scales, groups = torch.ones(3).half(), -(-columns // GROUP_SIZE)
    full = pack_nibbles(torch.full((3, columns), 15, dtype=torch.uint8))
    return {
        "15": QuantizedWeight(4, columns, full, scales, zeros=scales),
        "15 * 16 - 127": QuantizedWeight(
            4,
            columns,
            full,
            scales,
            group_scales=torch.full((3, groups), 16, dtype=torch.uint8),
            group_zeros=torch.full((3, groups), 127, dtype=torch.int8),
        ),
        "0 * 1 + 128": QuantizedWeight(
            4,
            columns,
            full * 0,
            scales,
            group_scales=torch.ones(3, groups, dtype=torch.uint8),
            group_zeros=torch.full((3, groups), -128, dtype=torch.int8),
        ),
        "127": QuantizedWeight(8, columns, torch.full((3, columns), 127, dtype=torch.int8), scales),
        "-128": QuantizedWeight(8, columns, torch.full((3, columns), -128, dtype=torch.int8), scales),
    }


@pytest.mark.parametrize("columns", [1, 128, 4096, 1 << 17])
@pytest.mark.parametrize("name", extreme_weights(1))
@pytest.mark.parametrize("code", [127, -127])
def test_extremes(isa: str, columns: int, name: str, code: int) -> None:
    """Nothing saturates, and the longest sum of the largest products fits."""
    weight = extreme_weights(columns)[name]
    x = rows_of_codes(torch.full((7, columns), code, dtype=torch.int8))
    assert (sums_of(x, weight).long() == columns * code * weight.integers()[0, 0].item()).all()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FORMS),
    st.integers(1, 20),
    columns_strategy,
    outputs_strategy,
    dtypes,
    dtypes,
    st.booleans(),
    seeds,
)
def test_equals_the_reference(
    isa: str,
    form: str,
    rows: int,
    columns: int,
    outputs: int,
    x_dtype: torch.dtype,
    dtype: torch.dtype,
    has_bias: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    weight, x = random_weight(form, outputs, columns), torch.randn(rows, columns).to(x_dtype)
    bias = torch.randn(outputs).to(dtype) if has_bias else None
    linear = QuantizedLinear(weight, bias, dtype)
    found, quantized = linear(x), quantize_rows(x)
    assert found.shape == (rows, outputs)
    assert found.dtype == dtype
    assert torch.equal(linear(quantized), found)
    expected = exact(quantized, weight, bias)
    # An output can be a sum that cancels: the size of its terms is the scale.
    terms = quantized.dequantize().abs() @ weight.dequantize().abs().T
    scale = max(expected.abs().max(), 2e-1 * terms.max())
    assert (found.double() - expected).abs().max() <= TOLERANCES[dtype] * scale


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33, 128])
def test_the_zero_of_a_channel_is_removed_exactly(isa: str, rows: int) -> None:
    """By the sum of the codes. With the sum of what was quantized, as QServe has it, the result is another."""
    weight, x = random_weight("channel", 70, 515), torch.randn(rows, 515)
    assert weight.zeros is not None
    quantized = quantize_rows(x)
    expected = exact(quantized, weight)
    found = QuantizedLinear(weight, None, torch.float32)(quantized)
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    products = (
        reference.quantized_sums(quantized.codes[:, :515], weight).double()
        * quantized.scales.double()[:, None]
    )
    approximate = products * weight.scales.double() - x.double().sum(1)[:, None] * weight.zeros.double()
    assert (approximate - expected).abs().max() > 1e-4 * expected.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_a_row_does_not_depend_on_its_batch(isa: str, form: str) -> None:
    linear = QuantizedLinear(random_weight(form, 70, 301), torch.randn(70), torch.float32)
    x = torch.randn(400, 301)
    whole = linear(x)
    for rows in [*range(1, 25), 191, 192, 193, 194, 385]:
        first = int(torch.randint(401 - rows, ()).item())
        assert torch.equal(linear(x[first : first + rows]), whole[first : first + rows])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(FORMS), rows_strategy, st.integers(1, 300), dtypes, seeds)
def test_threads_change_no_bit(form: str, rows: int, outputs: int, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    linear, x = QuantizedLinear(random_weight(form, outputs, 130), None, dtype), torch.randn(rows, 130)
    with thread_count(1):
        expected = linear(x)
    for count in (2, 3, 5):
        with thread_count(count):
            assert torch.equal(linear(x), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_stays_in_its_row(isa: str, form: str, value: float) -> None:
    linear, x = QuantizedLinear(random_weight(form, 65, 33), None, torch.bfloat16), torch.randn(5, 33)
    alone = linear(x)
    x[2, -1] = value
    found = linear(x)
    assert torch.equal(found[[0, 1, 3, 4]], alone[[0, 1, 3, 4]])
    assert found[2].isnan().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_no_rows(isa: str, form: str, dtype: torch.dtype) -> None:
    found = QuantizedLinear(random_weight(form, 5, 8), None, dtype)(torch.empty(0, 8))
    assert found.shape == (0, 5)
    assert found.dtype == dtype


@pytest.mark.parametrize("form", FORMS)
def test_the_weight_given_is_not_needed_any_more(form: str) -> None:
    weight, x = random_weight(form, 70, 40), torch.randn(3, 40)
    linear = QuantizedLinear(weight, None, torch.float32)
    before = linear(x)
    weight.codes.zero_()
    weight.scales.zero_()
    assert torch.equal(linear(x), before)


def test_a_transposed_weight() -> None:
    weight = random_weight("8 bits", 40, 70)
    turned = QuantizedWeight(8, 70, weight.codes.T.contiguous().T, weight.scales)
    x = torch.randn(3, 70)
    linears = (QuantizedLinear(each, None, torch.float32) for each in (weight, turned))
    assert torch.equal(*(linear(x) for linear in linears))


def test_what_does_not_fit() -> None:
    linear = QuantizedLinear(random_weight("groups", 3, 8), None, torch.float32)
    for x in (torch.zeros(2, 6), quantize_rows(torch.zeros(2, 9))):
        with pytest.raises(ValueError, match="columns and does not fit the weight, which has 8"):
            linear(x)


def test_what_the_cpu_does_not_multiply() -> None:
    weight = random_weight("8 bits", 2, 8)
    with pytest.raises(TypeError, match=r"not torch\.float64"):
        QuantizedLinear(weight, None, torch.float64)
    elsewhere = QuantizedWeight(8, 8, weight.codes.to("meta"), weight.scales)
    with pytest.raises(ValueError, match="run on the CPU only, and this weight is on meta"):
        QuantizedLinear(elsewhere, None, torch.float32)
    long = random_weight("8 bits", 1, (1 << 17) + 1)
    with pytest.raises(ValueError, match="131072 columns at most, and this one has 131073"):
        QuantizedLinear(long, None, torch.float32)


@pytest.mark.parametrize("form", FORMS)
def test_flops_are_counted(form: str) -> None:
    linear = QuantizedLinear(random_weight(form, 30, 50), torch.randn(30), torch.bfloat16)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        linear(torch.randn(7, 50))
    assert counter.get_total_flops() == 2 * 7 * 30 * 50


@pytest.mark.parametrize("form", FORMS)
def test_who_looks_on_sees_an_operator(form: str) -> None:
    """And nobody's looking changes a bit."""
    linear, x = QuantizedLinear(random_weight(form, 30, 50), None, torch.bfloat16), torch.randn(2, 50)
    alone = linear(x)
    with torch.profiler.profile() as profile:
        watched = linear(x)
    assert "lapidist::quantized_linear" in {event.key for event in profile.key_averages()}
    assert torch.equal(watched, alone)
    with FlopCounterMode(display=False):
        assert torch.equal(linear(x), alone)
