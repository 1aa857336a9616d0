"""The analytical model: limits, quantization and the recovery of parameters from times that it made itself."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.gemm_roofline import (
    RooflineParameters,
    fit_roofline,
    lower_bound_seconds,
    roofline_terms,
)

H200, BF16 = load_data_sheet("h200"), gemm_format("bf16")
PARAMETERS = RooflineParameters()


def seconds(m: float, n: float, k: float, parameters: RooflineParameters = PARAMETERS) -> float:
    arrays = (np.array([float(size)]) for size in (m, n, k))
    return float(roofline_terms(*arrays, H200, BF16, parameters).seconds[0])


def test_tiny_gemm_is_a_launch() -> None:
    assert seconds(1, 32, 32) == pytest.approx(PARAMETERS.launch_seconds, rel=0.1)


def test_huge_gemm_is_held_by_the_power_limit() -> None:
    limit = PARAMETERS.power_cap * H200.operations_per_second("bf16")
    with_wide_l2 = replace(PARAMETERS, l2_bytes_per_cycle=1e3)
    assert 2 * 32768.0**3 / seconds(32768, 32768, 32768) < limit
    assert 2 * 32768.0**3 / seconds(32768, 32768, 32768, with_wide_l2) == pytest.approx(limit, rel=0.02)


def test_decoding_a_large_matrix_is_memory() -> None:
    traffic = 2.0 * 16384 * 16384
    expected = traffic / (PARAMETERS.memory_efficiency * H200.memory_bytes_per_second)
    assert expected < seconds(1, 16384, 16384) < 1.25 * expected


def test_matrix_inside_l2_may_beat_the_memory() -> None:
    sheet = load_data_sheet("l40s")
    m, n, k = np.array([1.0]), np.array([4096.0]), np.array([4096.0])  # 32 MiB of 96
    terms = roofline_terms(m, n, k, sheet, BF16, PARAMETERS)
    assert terms.seconds[0] < 2.0 * 4096 * 4096 / sheet.memory_bytes_per_second
    assert lower_bound_seconds(m, n, k, sheet, BF16)[0] < terms.seconds[0]


def test_quantizing_the_input_is_paid_for() -> None:
    """A single output column: 16-bit input read, 8-bit input written and read again."""
    m, n, k = (np.array([float(size)]) for size in (65536, 32, 16384))
    found = roofline_terms(m, n, k, H200, gemm_format("fp8"), PARAMETERS).seconds[0]
    traffic = (2 + 1 + 1) * 65536 * 16384 / (PARAMETERS.memory_efficiency * H200.memory_bytes_per_second)
    assert traffic < found < 1.3 * traffic


def test_one_row_more_than_a_wave_costs() -> None:
    """128 rows by 128 x 132 columns fill an H200's SMs once with tiles of 128 x 128."""
    assert seconds(129, 128 * 132, 4096) > 1.05 * seconds(128, 128 * 132, 4096)


@given(st.tuples(*[st.integers(1, 2**20)] * 3))
def test_finite_and_positive_everywhere(sizes: tuple[int, int, int]) -> None:
    found = seconds(*sizes)
    assert np.isfinite(found)
    assert found >= PARAMETERS.launch_seconds


def test_parameters_are_found_again() -> None:
    true = RooflineParameters(
        launch_seconds=4e-6,
        compute_efficiency=0.8,
        power_cap=0.7,
        memory_efficiency=0.75,
        l2_bytes_per_cycle=25.0,
    )
    generator = np.random.default_rng(0)
    m, n, k = (2.0 ** generator.uniform(5, 14, 1500).round() for _ in range(3))
    times = roofline_terms(m, n, k, H200, BF16, true).seconds
    found = fit_roofline(m, n, k, times, H200, BF16)
    error = np.abs(roofline_terms(m, n, k, H200, BF16, found).seconds / times - 1)
    assert error.mean() < 0.03
