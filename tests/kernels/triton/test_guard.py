"""Mode unified: which rows are computed again, and that all of them come out right.

The numbers are those of FlashDecoding++ in float32: a row whose maximum is D above phi is good for D in about
(-59, 77), see ``lapidist.kernels.softmax``.
"""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from lapidist.kernels.softmax import Softmax, SoftmaxMode
from lapidist.kernels.triton.attention import paged_attention
from tests.kernels.triton.paged_case import DEVICE, Batch, random_batch, relative_error, scored_batch

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

UNIFIED = SoftmaxMode.UNIFIED
# A score of 200 in float32 is off by 8e-6 already, in units of log 2 again, and its weight by that share.
TOLERANCES = {torch.float32: 3e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def run(batch: Batch, phi: torch.Tensor | None = None, splits: int | None = None) -> tuple[torch.Tensor, int]:
    output, recomputed = paged_attention(
        batch.query, batch.keys, batch.values, batch.layout, 1.0, softmax=Softmax(UNIFIED, phi), splits=splits
    )
    return output, int(recomputed)


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_an_infinite_denominator_alone_is_noticed(dtype: torch.dtype, splits: int) -> None:
    # The numerators stay finite: without the look at the denominator the row would be finite zeros.
    values = torch.randn(512, 64) * 1e-3
    batch = scored_batch(torch.full((512,), 84.0), torch.zeros(1, 1), values, dtype)
    output, recomputed = run(batch, splits=splits)
    assert recomputed == 1
    assert relative_error(output, batch.expected(1.0)) < TOLERANCES[dtype]


@pytest.mark.parametrize(
    ("distance", "is_redone"), [(-150, 1), (-96, 1), (-92, 1), (-50, 0), (0, 0), (70, 0), (90, 1), (200, 1)]
)
@pytest.mark.parametrize("keys", [1, 300])
def test_rows_far_from_phi_are_redone(distance: int, is_redone: int, keys: int) -> None:
    scores = torch.randn(keys).clamp(max=-0.1)
    scores[torch.randint(keys, ())] = 0
    batch = scored_batch(scores, torch.full((1, 3), float(distance)), torch.randn(keys, 64))
    output, recomputed = run(batch)
    assert recomputed == 3 * is_redone
    assert relative_error(output, batch.expected(1.0)) < TOLERANCES[torch.float32]


@pytest.mark.parametrize("splits", [1, 3])
def test_random_distances(splits: int) -> None:
    shifts = torch.empty(40, 4).uniform_(-150, 150)
    batch = scored_batch(torch.randn(200), shifts, torch.randn(200, 64))
    output, recomputed = run(batch, splits=splits)
    assert relative_error(output, batch.expected(1.0)) < TOLERANCES[torch.float32]
    surely = ((shifts < -65) | (shifts > 90)).sum().item()
    maybe = ((shifts < -48) | (shifts > 75)).sum().item()
    assert surely <= recomputed <= maybe


def test_phi_is_one_number_per_head() -> None:
    lengths = [(1, 50), (20, 30), (3, 90)]
    batch = random_batch(lengths, kv_heads=2, group=2)
    phi = torch.tensor([0.0, 200.0, 0.0, -200.0], device=DEVICE)
    output, recomputed = paged_attention(
        batch.query, batch.keys, batch.values, batch.layout, 0.125, softmax=Softmax(UNIFIED, phi)
    )
    assert recomputed.item() == 2 * 24
    assert relative_error(output, batch.expected(0.125)) < TOLERANCES[torch.float32]


def test_low_outliers_and_hidden_keys_are_no_reason() -> None:
    scores = torch.randn(400)
    scores[torch.randperm(400)[:40]] = -1000
    batch = scored_batch(scores, torch.zeros(30, 2), torch.randn(400, 64))
    output, recomputed = paged_attention(
        batch.query, batch.keys, batch.values, batch.layout, 1.0, window=250, softmax=Softmax(UNIFIED)
    )
    assert recomputed.item() == 0
    assert relative_error(output, batch.expected(1.0, window=250)) < TOLERANCES[torch.float32]


@pytest.mark.parametrize("mode", [SoftmaxMode.ONLINE, SoftmaxMode.LAZY])
def test_the_other_modes_need_no_guard(mode: SoftmaxMode) -> None:
    shifts = torch.empty(4, 3).uniform_(-120, 120)
    # The maximum grows block by block, by less and by more than the threshold of mode lazy.
    scores = torch.cat([torch.linspace(-30, 5, 200), torch.linspace(5, 80, 200)])
    batch = scored_batch(scores, shifts, torch.randn(400, 64))
    output, recomputed = paged_attention(
        batch.query, batch.keys, batch.values, batch.layout, 1.0, softmax=Softmax(mode), splits=3
    )
    assert recomputed.item() == 0
    assert relative_error(output, batch.expected(1.0)) < TOLERANCES[torch.float32]


def test_values_that_are_not_finite_stay_so() -> None:
    values = torch.randn(60, 64)
    values[17, 5] = float("inf")
    batch = scored_batch(torch.randn(60), torch.zeros(1, 1), values)
    output, recomputed = run(batch)
    assert recomputed == 1
    assert output[0, 0, 5] == float("inf")
    assert output[0, 0, 6:].isfinite().all()
