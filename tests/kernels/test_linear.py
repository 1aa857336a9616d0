"""Linear layers over packed weights against the reference, and the three functions against one another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lapidist.kernels import reference
from lapidist.kernels.cpu.linear import IMPLEMENTATIONS, multiply, pack_weight
from lapidist.kernels.dispatch import DispatchTable
from lapidist.kernels.linear import Linear
from tests.kernels.thread_count import thread_count

# Of the largest output.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-10}
# FlashDecoding++ (arXiv 2311.01282), figure 12: outputs and inputs of the layers that it measures.
PAPER_SHAPES = [
    (4096, 4096),
    (4096, 11008),
    (4096, 12288),
    (12288, 4096),
    (4096, 16384),
    (16384, 4096),
    (4096, 13696),
    (13696, 4096),
]
NAMES = [each.name for each in IMPLEMENTATIONS]
GUARD = -12345.0
sizes = st.one_of(st.integers(1, 9), st.integers(1, 150))
dtypes = st.sampled_from(list(TOLERANCES))
seeds = st.integers(0, 1 << 30)


def guarded(rows: int, outputs: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Room for a result, and the memory around it."""
    memory = torch.full((rows + 2, outputs), GUARD, dtype=dtype)
    return memory[1:-1], memory


def run(name: str, x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None = None) -> Tensor:
    """The product; nothing is written beside it."""
    out, memory = guarded(len(x), outputs, x.dtype)
    multiply(name, x, packed, out, bias)
    untouched = torch.full((outputs,), GUARD, dtype=x.dtype)
    assert torch.equal(memory[0], untouched)
    assert torch.equal(memory[-1], untouched)
    return out


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).abs().max() / expected.abs().max())


@settings(max_examples=100, deadline=None)
@given(
    rows=sizes,
    columns=st.one_of(sizes, st.sampled_from([255, 256, 257, 511, 513, 700])),
    outputs=st.one_of(sizes, st.sampled_from([63, 64, 65, 128, 192, 193])),
    has_bias=st.booleans(),
    dtype=dtypes,
    view=st.sampled_from(["dense", "apart", "transposed"]),
    seed=seeds,
)
def test_equals_the_reference(
    isa: str, rows: int, columns: int, outputs: int, has_bias: bool, dtype: torch.dtype, view: str, seed: int
) -> None:
    torch.manual_seed(seed)
    # Columns that belong to others are NaN: one that was read would show.
    wide = torch.full((rows, columns + 3), torch.nan, dtype=dtype)
    wide[:, 1:-2] = torch.randn(rows, columns).to(dtype)
    x = wide[:, 1:-2]
    x = {"dense": x.contiguous(), "apart": x, "transposed": x.T.contiguous().T}[view]
    weight = torch.randn(outputs, columns).to(dtype)
    bias = torch.randn(outputs).to(dtype) if has_bias else None
    found = Linear(weight, bias)(x)
    expected = reference.linear(x, weight, bias)
    assert found.shape == (rows, outputs)
    assert found.dtype == dtype
    # One output can be a sum that cancels: the size of its terms is the scale.
    scale = reference.linear(x.abs(), weight.abs(), None if bias is None else bias.abs()).max()
    assert (found.double() - expected).abs().max() <= TOLERANCES[dtype] * expected.abs().max() + 1e-6 * scale


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 420), columns=st.integers(1, 700), outputs=sizes, dtype=dtypes, seed=seeds)
def test_the_three_functions_agree_to_the_last_bit(
    isa: str, rows: int, columns: int, outputs: int, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    x, weight = torch.randn(rows, columns).to(dtype), torch.randn(outputs, columns).to(dtype)
    bias = torch.randn(outputs).to(dtype) if seed % 2 else None
    packed = pack_weight(weight)
    first, *others = (run(name, x, packed, outputs, bias) for name in NAMES)
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_row_does_not_depend_on_its_batch(isa: str, dtype: torch.dtype) -> None:
    x, weight = torch.randn(200, 301).to(dtype), torch.randn(70, 301).to(dtype)
    packed = pack_weight(weight)
    alone = torch.cat([run("gemv", row[None], packed, 70) for row in x])
    for rows in range(1, 201):
        first = torch.randint(201 - rows, ()).item()
        span = slice(first, first + rows)
        assert torch.equal(run(NAMES[rows % 3], x[span], packed, 70), alone[span])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_a_layer_gives_a_row_the_same_bits_in_every_batch(isa: str, dtype: torch.dtype) -> None:
    """Whatever the dispatch table chooses."""
    table = DispatchTable(default=((1, "gemv"), (3, "gemm"), (6, "flat_gemm"), (100, "gemm")))
    linear = Linear(torch.randn(70, 64).to(dtype), torch.randn(70).to(dtype), table)
    x = torch.randn(200, 64).to(dtype)
    whole = linear(x)
    for rows in (1, 2, 3, 5, 6, 7, 16, 17, 99, 100, 101, 128, 129):
        assert torch.equal(linear(x[-rows:]), whole[-rows:])


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 420), columns=sizes, outputs=st.integers(1, 400), dtype=dtypes, seed=seeds)
def test_threads_change_no_bit(rows: int, columns: int, outputs: int, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    x, weight = torch.randn(rows, columns).to(dtype), torch.randn(outputs, columns).to(dtype)
    with thread_count(1):
        packed = pack_weight(weight)
        expected = run("gemm", x, packed, outputs)
    for count in (2, 3, 5):
        with thread_count(count):
            again = pack_weight(weight)
            assert torch.equal(again, packed)
            assert all(torch.equal(run(name, x, again, outputs), expected) for name in NAMES)


def check_paper_shape(outputs: int, columns: int, dtype: torch.dtype, row_counts: range | list[int]) -> None:
    """Acceptance check 12 of FlashDecoding++'s flat GEMM."""
    weight = torch.randn(outputs, columns).to(dtype)
    x = torch.randn(max(row_counts), columns).to(dtype)
    packed, expected = pack_weight(weight), reference.linear(x, weight)
    for rows in row_counts:
        for name in NAMES:
            error = relative_error(run(name, x[:rows], packed, outputs), expected[:rows])
            assert error <= {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-2}[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", PAPER_SHAPES)
def test_flat_gemm_of_the_papers_shapes_scaled_down(
    isa: str, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    check_paper_shape(shape[0] // 16, shape[1] // 16, dtype, range(1, 18))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flat_gemm_of_a_real_shape(isa: str, dtype: torch.dtype) -> None:
    check_paper_shape(*PAPER_SHAPES[1], dtype, [1, 2, 7, 8, 9, 16, 17])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_rows_beyond_the_batch_are_not_read(isa: str, dtype: torch.dtype) -> None:
    x = torch.full((9, 33), torch.nan, dtype=dtype)
    x[2:5] = 1
    packed = pack_weight(torch.ones(65, 33, dtype=dtype))
    for name in NAMES:
        assert (run(name, x[2:5], packed, 65) == 33).all()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_stays_in_its_row(isa: str, dtype: torch.dtype, value: float) -> None:
    x, weight = torch.ones(5, 33, dtype=dtype), torch.ones(65, 33, dtype=dtype)
    x[2, -1] = value
    for name in NAMES:
        found = run(name, x, pack_weight(weight), 65)
        assert (found[[0, 1, 3, 4]] == 33).all()
        assert torch.equal(found[2].isnan(), torch.full((65,), value != value))
        assert not found[2].isfinite().any()


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_nothing_is_left_of_an_earlier_call(isa: str, dtype: torch.dtype) -> None:
    """An odd number of columns is padded in memory that calls share."""
    for columns, value in ((35, torch.nan), (33, 1.0)):
        packed = pack_weight(torch.ones(65, columns, dtype=dtype))
        for name in NAMES:
            found = run(name, torch.full((9, columns), value, dtype=dtype), packed, 65)
    assert (found == 33).all()


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_no_rows(isa: str, dtype: torch.dtype) -> None:
    found = Linear(torch.randn(5, 8).to(dtype))(torch.empty(0, 8, dtype=dtype))
    assert found.shape == (0, 5)
    assert found.dtype == dtype


def test_the_weight_given_is_not_needed_any_more() -> None:
    weight, x = torch.randn(70, 40), torch.randn(3, 40)
    linear = Linear(weight)
    before = linear(x)
    weight.zero_()
    assert torch.equal(linear(x), before)


def test_a_transposed_weight() -> None:
    weight, x = torch.randn(40, 70).T, torch.randn(3, 40)
    assert relative_error(Linear(weight)(x), reference.linear(x, weight)) < 1e-5


def test_every_processor_packs_alike(isa: str) -> None:
    for dtype in TOLERANCES:
        weight = torch.arange(65 * 33).reshape(65, 33).to(dtype)
        packed = pack_weight(weight)
        assert packed.shape == (2, 34, 64)
        pair = 2 if dtype == torch.bfloat16 else 1
        columns = packed.reshape(2, 34 // pair, 64, pair).permute(0, 2, 1, 3).reshape(128, 34)
        assert torch.equal(columns[:65, :33], weight)
        assert not columns[65:].any()
        assert not columns[:, 33:].any()


def test_only_floats_are_packed() -> None:
    with pytest.raises(TypeError, match=r"not torch\.float64"):
        Linear(torch.zeros(3, 4, dtype=torch.float64))


def test_x_must_fit_the_weight() -> None:
    linear = Linear(torch.zeros(3, 8))
    with pytest.raises(TypeError, match="does not fit"):
        linear(torch.zeros(2, 8, dtype=torch.bfloat16))
    for columns in (6, 9):
        with pytest.raises(ValueError, match="does not fit"):
            linear(torch.zeros(2, columns))


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_flops_are_counted(dtype: torch.dtype) -> None:
    linear = Linear(torch.randn(30, 50).to(dtype), torch.randn(30).to(dtype))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        linear(torch.randn(7, 50).to(dtype))
    assert counter.get_total_flops() == 2 * 7 * 30 * 50


def test_who_looks_on_sees_an_operator() -> None:
    """And nobody's looking changes a bit."""
    linear, x = Linear(torch.randn(30, 50), torch.randn(30)), torch.randn(7, 50)
    alone = linear(x)
    with torch.profiler.profile() as profile:
        watched = linear(x)
    assert "lapidist::packed_linear" in {event.key for event in profile.key_averages()}
    assert torch.equal(watched, alone)
