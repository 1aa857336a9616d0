"""Calibration by a few points: a common factor, its drift, and an interval that holds."""

import numpy as np
import pytest

from lapidist.hardware.gpu.gemm_correction import fit_correction


def sizes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    m, n, k = 2.0 ** generator.integers(5, 15, (3, count))
    return m, n, k


@pytest.mark.parametrize("count", [1, 3, 50])
def test_common_factor_is_found(count: int) -> None:
    points = sizes(count, 0)
    correction = fit_correction(*points, np.full(count, np.log(1.5)))
    assert np.exp(correction.log_factor(*sizes(100, 1))) == pytest.approx(1.5, rel=0.02)


def test_drift_and_interval() -> None:
    def error(m: np.ndarray, n: np.ndarray, k: np.ndarray, seed: int) -> np.ndarray:
        return 0.2 + 0.03 * (np.log2(m) - 10) + 0.03 * np.random.default_rng(seed).standard_normal(len(m))

    points, others = sizes(60, 2), sizes(2000, 3)
    correction = fit_correction(*points, error(*points, 4))
    left = np.abs(error(*others, 5) - correction.log_factor(*others))
    assert left.mean() < 0.05
    assert 0.8 < (left <= correction.half_width).mean() <= 1


def test_interval_that_is_too_narrow_is_stretched() -> None:
    """Errors of 10 % for small m and 2 % for large, foretold in proportion but of half the size."""

    def error(m: np.ndarray, seed: int) -> np.ndarray:
        return np.where(m < 1024, 0.10, 0.02) * np.random.default_rng(seed).standard_normal(len(m))

    def foretold(m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width = 1.64 / 2 * np.where(m < 1024, 0.10, 0.02)
        return width, width

    points, others = sizes(80, 2), sizes(2000, 3)
    correction = fit_correction(*points, error(points[0], 4), foretold(points[0]))
    assert correction.stretch == pytest.approx(2.0, rel=0.35)
    left = np.abs(error(others[0], 5) - correction.log_factor(*others))
    for small in (True, False):
        rows = (others[0] < 1024) == small
        assert (left <= correction.stretch * foretold(others[0])[0])[rows].mean() > 0.75
    more = fit_correction(*points, error(points[0], 4), foretold(points[0]), fitted=10)
    assert more.stretch is not None
    assert more.stretch > 1.05 * correction.stretch
    assert fit_correction(*(x[:5] for x in points), error(points[0][:5], 4)).stretch is None


def test_needs_a_point() -> None:
    nothing = np.empty(0)
    with pytest.raises(ValueError, match="at least one"):
        fit_correction(nothing, nothing, nothing, nothing)
