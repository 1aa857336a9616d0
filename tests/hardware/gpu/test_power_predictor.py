import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.hardware.gpu.attention_law import AttentionShapes
from lapidist.hardware.gpu.power_predictor import PowerPredictor, power_predictor

_SIZE = st.integers(1, 1 << 17)


@settings(max_examples=60, deadline=None)
@given(
    gpu=st.sampled_from(["h200", "b200", "l40s", "rtx-4070"]),
    m=_SIZE,
    n=_SIZE,
    k=_SIZE,
    log_ms=st.floats(-3, 4),
)
def test_power_stays_between_idle_and_limit_and_energy_is_power_times_time(
    gpu: str, m: int, n: int, k: int, log_ms: float
) -> None:
    seconds = 1e-3 * 10**log_ms
    predictor = power_predictor(gpu)
    answer = predictor.gemm(m, n, k, seconds)
    assert predictor.sheet.idle_watts <= answer.low <= answer.watts <= answer.high <= predictor.limit_watts
    assert answer.joules == pytest.approx(float(answer.watts) * seconds, rel=1e-6)


def test_short_kernels_and_unmeasured_gpus_are_said_to_be_doubtful() -> None:
    h200 = power_predictor("h200")
    answer = h200.gemm([64, 8192], [4096, 8192], [4096, 8192], [1e-5, 1.5e-3])
    assert answer.low_confidence.tolist() == [True, False]
    assert any("50 microseconds" in note for note in answer.notes)
    assert power_predictor("rtx-4070").gemm(8192, 8192, 8192, 0.05).low_confidence
    assert (
        power_predictor("b200").gemm(8192, 8192, 8192, 0.001).low_confidence
    )  # its labels contradict each other


def test_a_long_square_gemm_on_h200_sits_at_the_limit() -> None:
    answer = power_predictor("h200").gemm(8192, 8192, 8192, 1.6e-3)
    assert 650 < answer.watts <= 700


def test_units_are_watts_seconds_and_joules() -> None:
    # 1.6 ms at 690 W are 1.1 J, not 1.1 mJ; nothing is rounded down to a millijoule.
    answer = power_predictor("h200").gemm(8192, 8192, 8192, 1.6e-3)
    assert 1.0 < answer.joules < 1.2
    tiny = power_predictor("h200").gemm(1, 64, 64, 2e-6)
    assert 0 < tiny.joules < 1e-3


def test_a_lower_limit_is_kept() -> None:
    predictor = power_predictor("h200", limit_watts=400)
    assert predictor.gemm(8192, 8192, 8192, 2e-3).high <= 400
    assert predictor.memory_bound(1e9, 1e-3).watts <= 400


def test_attention_power_is_asked_for_by_phase() -> None:
    predictor: PowerPredictor = power_predictor("h200")
    decode = AttentionShapes.of([64, 256], 1, [4096, 8192], 32, 8, 128)
    answer = predictor.attention(decode, [3e-4, 2e-3])
    assert answer.watts.shape == (2,)
    assert (answer.watts > 75).all()
    with pytest.raises(ValueError, match="apart"):
        predictor.attention(AttentionShapes.of(1, [1, 128], 4096, 32, 8, 128), 1e-4)


def test_memory_traffic_costs_power() -> None:
    busy, idle = (float(power_predictor("h200").memory_bound(moved, 1e-3).watts) for moved in (4e9, 1e6))
    assert busy > idle + 100


@pytest.mark.parametrize("limit", [0, 75, 701, float("nan")])
def test_impossible_limits_are_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="power limit of h200"):
        power_predictor("h200", limit)


def test_durations_must_be_positive() -> None:
    with pytest.raises(ValueError, match="seconds must be positive"):
        power_predictor("h200").gemm(1, 1, 1, 0.0)


def test_same_question_same_bits() -> None:
    sizes = np.random.default_rng(0).integers(64, 8192, size=(3, 50))
    first, second = (power_predictor("h200").gemm(*sizes, 1e-3).watts for _ in range(2))
    assert (first == second).all()
