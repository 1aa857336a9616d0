"""Some outputs of a linear layer are those of the whole layer, to the last bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.kernels.linear import Linear
from lapidist.kernels.output_range import output_range
from lapidist.kernels.quantized_linear import QuantizedLinear
from lapidist.kernels.weight_only_linear import WeightOnlyLinear
from tests.quantized_checkpoints import CHANNELS, EIGHT_BITS, GROUPS, random_weight

OUTPUTS, COLUMNS = 200, 128


@settings(deadline=None, max_examples=30)
@given(
    st.tuples(st.integers(0, OUTPUTS - 1), st.integers(1, OUTPUTS)).map(sorted).filter(lambda r: r[0] < r[1]),
    st.sampled_from([1, 5, 40]),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.booleans(),
)
def test_of_floats(span: list[int], rows: int, dtype: torch.dtype, has_bias: bool) -> None:
    weight, x = torch.randn(OUTPUTS, COLUMNS).to(dtype), torch.randn(rows, COLUMNS).to(dtype)
    layer = Linear(weight, torch.randn(OUTPUTS).to(dtype) if has_bias else None)
    start, stop = span
    assert torch.equal(output_range(layer, start, stop)(x), layer(x)[:, start:stop])


@pytest.mark.parametrize("format", [GROUPS, CHANNELS, EIGHT_BITS])
@pytest.mark.parametrize("kind", [QuantizedLinear, WeightOnlyLinear])
@pytest.mark.parametrize(("start", "stop"), [(0, 64), (64, 128), (128, 200), (70, 71), (3, 199)])
def test_of_codes(format: object, kind: type, start: int, stop: int) -> None:
    layer = kind(random_weight(OUTPUTS, COLUMNS, format), torch.randn(OUTPUTS), torch.float32)  # type: ignore[arg-type]
    x = torch.randn(7, COLUMNS)
    assert torch.equal(output_range(layer, start, stop)(x), layer(x)[:, start:stop])


def test_of_anything_else() -> None:
    assert output_range(lambda x: 2 * x, 1, 3)(torch.arange(8.0).view(2, 4)).tolist() == [[2, 4], [10, 12]]
