"""How many weights a benchmark calls in turn, and that the models know what it does to the times."""

import numpy as np
import pytest

from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.gemm_predictor import gemm_predictor
from lapidist.hardware.gpu.weight_rotation import WeightRotation, rotation_of

MIB = 2.0**20


def test_as_many_as_cover_l2() -> None:
    weights = np.array([1.0, 19.0, 20.0, 24.0, 28.0, 48.0, 64.0, 96.0, 97.0])
    assert WeightRotation(5, fills_l2=True).copies(weights, 96.0).tolist() == [5, 5, 5, 4, 4, 2, 2, 1, 1]
    assert WeightRotation(6).copies(weights, 96.0).tolist() == [6] * 9
    assert WeightRotation().copies(weights, 96.0).tolist() == [1] * 9


def test_collections_differ() -> None:
    assert rotation_of("TRTLLM", "1.3.0rc20", "bf16") == WeightRotation(5, fills_l2=True)
    assert rotation_of("TRTLLM", "1.0.0", "bf16") == WeightRotation(5)
    assert rotation_of("TRTLLM", "1.0.0", "sq") == WeightRotation()
    assert rotation_of("SGLang", "0.5.14", "fp8") == WeightRotation(6, inputs=True)
    assert [rotation_of("VLLM", "0.24.0", dtype).most for dtype in ("bf16", "nvfp4")] == [6, 1]
    assert rotation_of("torch", "2.9", "bf16") == WeightRotation()


@pytest.mark.parametrize(
    ("rotation", "dtype", "mebibytes"),
    [
        (WeightRotation(), "bf16", 32 + 8 + 8),
        (WeightRotation(3), "bf16", 3 * 32 + 8 + 8),
        (WeightRotation(3, inputs=True), "bf16", 3 * 32 + 3 * 8 + 8),
        (WeightRotation(2), "fp8", 2 * 16 + 8 + 4 + 8),  # the input in 16 bits and in 8
    ],
)
def test_working_set_counts_every_copy_once(rotation: WeightRotation, dtype: str, mebibytes: int) -> None:
    m, n, k = (np.array([float(size)]) for size in (1024, 4096, 4096))
    assert rotation.working_set_bytes(m, n, k, gemm_format(dtype), 96 * MIB) == mebibytes * MIB


@pytest.mark.parametrize(("version", "ratio"), [("1.3.0rc20", 2.0), ("1.0.0", 1.0)])
def test_bundled_models_know_it(version: str, ratio: float) -> None:
    """Weights of 24 MiB, of which four stay in an L40S's L2, against 28 MiB; five of either do not."""
    predictor = gemm_predictor("l40s", "bf16", "TRTLLM", version)
    stays = predictor.predict(4, 8192, 1536).seconds / (8192 * 1536)
    leaves = predictor.predict(4, 7168, 2048).seconds / (7168 * 2048)
    assert leaves / stays == pytest.approx(ratio, rel=0.4)
