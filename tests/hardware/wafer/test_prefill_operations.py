import warnings

import numpy as np
import torch

from lapidist.hardware.wafer.prefill_operations import rotate, silu_times
from lapidist.kernels import reference


def test_rotation_as_the_reference_kernel_does_it() -> None:
    rng = np.random.default_rng(0)
    heads, angles = rng.standard_normal((7, 3, 10)), rng.standard_normal((7, 5))
    ours = rotate(heads, angles[:, None])
    theirs = reference.rope(torch.from_numpy(heads), torch.from_numpy(angles)).numpy()
    assert np.allclose(ours, theirs, atol=1e-12)
    assert np.allclose(np.square(ours).sum(-1), np.square(heads).sum(-1))
    assert rotate(heads.astype(np.float16), angles[:, None]).dtype == np.float16


def test_silu_of_large_numbers_is_quiet_and_right() -> None:
    gate = np.array([-1000.0, -1.0, 0.0, 1.0, 1000.0], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = silu_times(gate, np.full(5, 2.0, np.float32))
    expected = 2 * torch.nn.functional.silu(torch.from_numpy(gate)).numpy()
    assert np.allclose(found, expected, rtol=1e-6, atol=0)
