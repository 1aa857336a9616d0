import numpy as np

from lapidist.hardware.wafer.softcap import softcap


def test_small_numbers_stay_and_large_ones_end_at_the_cap() -> None:
    x = np.array([-1e6, -0.01, 0.0, 3.0, 1e6], np.float32)
    found = softcap(x, 5.0)
    assert found.dtype == np.float32
    assert np.allclose(found, 5 * np.tanh(x.astype(np.float64) / 5), rtol=1e-6)
    assert np.abs(found).max() <= 5
    assert softcap(x[1:-1].astype(np.float16), 5.0).dtype == np.float16
