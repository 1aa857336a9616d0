"""A foreign job takes its turns from long kernels only, and its power is not the GEMM's."""

import numpy as np
import pytest

from lapidist.hardware.gpu.contention import OneBitPower, shared_seconds


def test_long_kernels_share_short_ones_do_not() -> None:
    alone = np.array([1e-4, 1e-4, 0.1, 0.1])
    foreign = np.array([False, True, False, True])
    np.testing.assert_allclose(shared_seconds(alone, foreign), [1e-4, 1e-4, 0.1, 0.2])


def test_one_bit_power() -> None:
    bit = OneBitPower.fit(np.array([False, False, True]), np.array([30.0, 32.0, 150.0]))
    assert list(bit.watts(np.array([True, False]))) == [150.0, 31.0]
    unseen = OneBitPower.fit(np.array([False, False]), np.array([30.0, 32.0]))
    assert unseen.foreign_watts == pytest.approx(31.0)
