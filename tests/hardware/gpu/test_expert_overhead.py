import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.gpu.expert_overhead import (
    AS_MEASURED,
    BY_BACKEND,
    TYPICAL,
    ExpertOverhead,
    expert_overhead,
)


@given(st.floats(1e-6, 1e-2), st.integers(1, 100_000), st.floats(0.01, 1e4), st.booleans())
def test_without_an_engine_kernels_take_what_was_measured(
    kernel: float, tokens: int, rows: float, is_fp4: bool
) -> None:
    assert AS_MEASURED.seconds(kernel, tokens, rows, is_fp4) == pytest.approx(kernel)


def test_factors_belong_to_few_and_to_many_rows() -> None:
    found = ExpertOverhead(2.0, 3.0, 0.5, 0.7, 1e-6, 1e-5, 1.0)
    for is_fp4, rows, factor in ((False, 1e-6, 2), (False, 1e9, 3), (True, 1e-6, 0.5), (True, 1e9, 0.7)):
        assert found.seconds(1e-3, 10, rows, is_fp4) == pytest.approx(factor * 1e-3 + 1e-5 + 1e-5)


def test_every_engine_has_constants_on_every_architecture() -> None:
    assert expert_overhead("vllm", "blackwell") == BY_BACKEND["vllm", True]
    assert expert_overhead("vllm", "ampere") == expert_overhead("vllm", "hopper") == BY_BACKEND["vllm", False]
    assert expert_overhead("sglang", "blackwell") == expert_overhead(None, "blackwell") == TYPICAL[True]
    assert expert_overhead(None, "hopper") == TYPICAL[False]


def test_typical_constants_lie_between_those_of_engines() -> None:
    for is_blackwell, typical in TYPICAL.items():
        engines = [each for (_, blackwell), each in BY_BACKEND.items() if blackwell == is_blackwell]
        for name, value in vars(typical).items():
            values = [getattr(each, name) for each in engines]
            assert min(values) <= value <= max(values), (is_blackwell, name)
