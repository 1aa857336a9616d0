"""Errors by ratio, with their definitions spelled out."""

import numpy as np
import pytest

from lapidist.hardware.gpu.accuracy import accuracy


def test_definitions() -> None:
    found = accuracy([1.0, 2.0, 4.0], [1.1, 2.0, 3.0])
    assert found.mape == pytest.approx((0.1 + 0 + 0.25) / 3)
    assert found.median_ape == pytest.approx(0.1)
    assert found.max_ape == pytest.approx(0.25)
    assert found.median_bias == pytest.approx(0.0)
    assert found.mean_abs_log == pytest.approx(np.mean(np.abs(np.log([1.1, 1, 0.75]))))
    assert found.r2 == pytest.approx(1 - 1.01 / (14 / 3))


@pytest.mark.parametrize(
    ("measured", "predicted", "message"),
    [
        ([], [], "cannot compare 0"),
        ([1], [1, 2], "1 measurements with 2"),
        ([0], [1], "measured values"),
        ([1], [np.nan], "predicted"),
    ],
)
def test_what_cannot_be_compared(measured: list[float], predicted: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        accuracy(measured, predicted)
