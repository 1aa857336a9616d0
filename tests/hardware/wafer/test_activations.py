import warnings

import numpy as np
import pytest
import torch

from lapidist.hardware.wafer.activations import ACTIVATIONS
from lapidist.kernels import activation


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_large_numbers_are_quiet_and_right(name: str) -> None:
    x = np.array([-1000.0, -3.0, -1.0, 0.0, 0.5, 2.0, 1000.0], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ACTIVATIONS[name](x)
    expected = activation.ACTIVATIONS[name](torch.from_numpy(x.copy())).numpy()
    assert np.allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert ACTIVATIONS[name](x[1:-1].astype(np.float16)).dtype == np.float16


def test_all_that_models_know() -> None:
    assert set(ACTIVATIONS) == set(activation.ACTIVATIONS)
