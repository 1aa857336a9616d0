import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.throttling import throttling

BF16 = gemm_format("bf16")


def factor(gpu: str, operations: float, largest: float = 1e11) -> float:
    return float(throttling(np.array([operations]), largest, load_data_sheet(gpu), BF16, 0.8)[0])


def test_cards_with_fewer_watts_per_operation_fall_further() -> None:
    falls = [factor(gpu, 1e14) for gpu in ("a100", "rtx-pro-6000", "l40s", "h200", "b200")]
    assert falls == sorted(falls)
    assert falls[0] == pytest.approx(1.0, abs=0.01)
    assert falls[3] == pytest.approx(1.13, abs=0.02)
    assert falls[4] == pytest.approx(1.24, abs=0.02)


@given(st.floats(8, 18), st.floats(0, 4))
def test_longer_kernels_are_never_held_back_less(exponent: float, more: float) -> None:
    assert 1.0 <= factor("h200", 10**exponent) <= factor("h200", 10 ** (exponent + more)) <= 1.14


def test_nothing_changes_where_it_was_measured() -> None:
    assert factor("b200", 1e11) == 1.0
    assert factor("b200", 1e13, largest=1e13) == 1.0
    assert factor("b200", 1e18, largest=1e15) == 1.0  # the longest measured kernels have seen the whole fall
    assert factor("b200", 1.1e11) == 1.0  # a tenth of a millisecond
