import numpy as np
import torch

from lapidist.hardware.wafer.head_groups import HeadGroups
from lapidist.hardware.wafer.rope import Rope, rotate
from lapidist.kernels import reference


def test_rotation_as_the_reference_kernel_does_it() -> None:
    rng = np.random.default_rng(0)
    heads, angles = rng.standard_normal((7, 3, 10)), rng.standard_normal((7, 5))
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    ours = rotate(heads, cos, sin)
    theirs = reference.rope(torch.from_numpy(heads), torch.from_numpy(angles)).numpy()
    assert np.allclose(ours, theirs, atol=1e-12)
    assert np.allclose(np.square(ours).sum(-1), np.square(heads).sum(-1))
    assert rotate(heads.astype(np.float16), cos, sin).dtype == np.float16


def test_channels_that_pass_and_padding_do_not_turn() -> None:
    """Heads of 10 channels on 3 columns: 2 pairs each, the last one padding; 3 pairs turn."""
    heads = HeadGroups(cols=3, num_heads=1, num_kv_heads=1, head_dim=10, rotary_dim=6)
    rope = Rope.plain(np.array([1.0, 0.1, 0.01]))
    cos, sin = rope.by_column(heads, np.array([0, 7]), np.array([8, 8]))
    assert cos.shape == sin.shape == (2, 3, 2)
    assert np.allclose(np.arcsin(sin[1]), [[7 - 2 * np.pi, 0.7], [0.07, 0], [0, 0]])
    assert np.array_equal(cos[:, :, :][0], np.ones((3, 2)))
    assert heads.rotated_dims().tolist() == [[0, 1, 3, 4], [2, 6, 5, 8], [7, -1, 9, -1]]
