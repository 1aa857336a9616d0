"""The unified maximum of FlashDecoding++ (arXiv 2311.01282): one constant phi in place of each row's maximum.

With D the distance of a row's maximum from phi: while D is in range the result does not depend on phi; a row out of
range is found by its sums (its denominator, not its result: an infinite denominator alone gives finite zeros) and
computed again.
"""

import math

import numpy as np
import pytest
import torch

from lapidist.kernels.attention import paged_attention
from lapidist.kernels.cpu.attention import paged_attention as cpu_attention
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import LEAST_DENOMINATOR, Softmax, SoftmaxMode
from tests.kernels.exact_scores import Rows

LONG = 131072
UNIFIED = SoftmaxMode.UNIFIED
# A sum above this has a reciprocal that may be flushed to zero: the native library trusts none.
LARGEST_DENOMINATOR = 2.0**126


def distant(rows: int, length: int, sigma: float, distances: torch.Tensor) -> torch.Tensor:
    """Normal scores whose maxima are the given distances from zero."""
    scores = torch.randn(rows, length) * sigma
    return scores - scores.amax(-1, keepdim=True) + distances[:, None]


def check_count(rows: Rows, phi: float | torch.Tensor, recomputed: int, precision: float) -> None:
    """Just the rows whose denominator is out of range were computed again; those on the border may have been."""
    log = rows.log_denominators(phi)
    borders = torch.tensor([math.log(LEAST_DENOMINATOR), math.log(LARGEST_DENOMINATOR)]).double()
    certain = (log < borders[0] - precision) | (log > borders[1] + precision)
    doubtful = ((log[:, None] - borders).abs() <= precision).any(-1)
    assert certain.sum() <= recomputed <= certain.sum() + doubtful.sum()


# Check 1.
@pytest.mark.parametrize("sigma", [1.0, 3.0, 6.0])
def test_phi_does_not_matter(isa: str, sigma: float) -> None:
    rows = Rows.of(torch.randn(1, 4096) * sigma, head_dim=64)
    most = rows.scores.max().item()
    for distance in range(-80, 81, 10):
        found, recomputed = rows.attend(UNIFIED, most - distance)
        assert rows.error(found) <= 2e-6, f"D = {distance}"
        assert recomputed == 0 or distance <= -60


@pytest.mark.parametrize("sigma", [1.0, 3.0, 6.0])
def test_phi_does_not_matter_over_long_contexts(sigma: float) -> None:
    rows = Rows.of(torch.randn(1, LONG) * sigma, head_dim=32)
    most = rows.scores.max().item()
    for distance in (-80, -50, -17, 0, 40, 60, 70, 76):
        found, recomputed = rows.attend(UNIFIED, most - distance)
        assert rows.error(found) <= 1e-5, f"D = {distance}"
        assert recomputed == 0 or distance < -50


# Check 2.
@pytest.mark.parametrize("length", [1, 7, 16, 100, 4096])
def test_as_good_as_online_softmax(isa: str, length: int) -> None:
    for sigma in (1.0, 3.0, 6.0):
        rows = Rows.of(torch.randn(8, length) * sigma, heads=4, head_dim=64)
        unified = rows.error(rows.attend(UNIFIED, 3.0)[0])
        for mode in (SoftmaxMode.ONLINE, SoftmaxMode.LAZY):
            other = rows.error(rows.attend(mode)[0])
            assert unified <= 2 * other + 1e-6
            assert other <= 2 * unified + 1e-6


# Check 3.
@pytest.mark.parametrize("mode", SoftmaxMode)
def test_splits_do_not_matter(isa: str, mode: SoftmaxMode) -> None:
    rows = Rows.of(torch.randn(1, 4096) * 3, head_dim=64)
    # 1, 2, 7, 32 and 128 partial sums.
    found = [rows.attend(mode, 5.0, split)[0] for split in (4096, 2048, 592, 128, 32)]
    assert len({-(-4096 // split) for split in (4096, 2048, 592, 128, 32)} & {1, 2, 7, 32, 128}) == 5
    for one in found:
        for other in found:
            assert (one - other).abs().max() <= 2e-6 * one.abs().max()
    for split, before in zip((4096, 2048, 592, 128, 32), found, strict=True):
        for _ in range(3):
            assert torch.equal(rows.attend(mode, 5.0, split)[0], before)


# Check 4.
@pytest.mark.parametrize("distance", [84.0, 88.0, 200.0])
def test_overflow_of_long_rows_is_found(isa: str, distance: float) -> None:
    """At D = 84 each exponential is finite and so are the weighted sums of small values; the denominator is not."""
    scores = torch.randn(1, LONG)
    rows = Rows.of(scores - scores.max() + distance)
    rows = Rows(rows.scores, rows.values * 1e-4, rows.heads)
    found, recomputed = rows.attend(UNIFIED)
    assert recomputed == 1
    assert rows.error(found) <= 1e-5


@pytest.mark.parametrize("length", [1, 5, 17, 48])
def test_no_row_out_of_range_is_missed(isa: str, length: int) -> None:
    """25,000 rows of each length, 100,000 in all."""
    rows = Rows.of(distant(25_000, length, 3.0, torch.rand(25_000) * 300 - 150), heads=250)
    phi = torch.rand(250) * 20 - 10
    found, recomputed = rows.attend(UNIFIED, phi)
    assert rows.error(found) <= 1e-5
    check_count(rows, phi, recomputed, 1e-3)


def test_partial_sums_in_range_whose_total_is_not() -> None:
    """Splits that look sound one by one: the guard looks at what they add up to."""
    rows = Rows.of(torch.full((1, 4096), 83.0))
    assert rows.attend(UNIFIED, split_tokens=16)[1] == 1
    found, recomputed = Rows.of(torch.full((1, 64), 83.0)).attend(UNIFIED, split_tokens=16)
    assert recomputed == 0
    assert abs(found[0, -1] - 1) < 1e-6


def test_opposite_overflows_are_found() -> None:
    """Values whose weighted sums leave the range in both directions, while the denominator stays in it."""
    scores = torch.full((1, 32), 80.0)
    values = torch.tensor([1e6, -1e6]).repeat(16)[None, :, None].expand(1, 32, 2).contiguous()
    rows = Rows(scores, values, 1)
    found, recomputed = rows.attend(UNIFIED)
    assert recomputed == 1
    assert found.abs().max() <= 1


# Check 5.
@pytest.mark.parametrize("distance", [-92.0, -96.0])
@pytest.mark.parametrize("length", [1, 100, LONG])
def test_underflow_is_found(isa: str, distance: float, length: int) -> None:
    rows = Rows.of(distant(1, length, 1.0, torch.tensor([distance])), head_dim=32)
    found, recomputed = rows.attend(UNIFIED)
    assert recomputed == 1
    assert rows.error(found) <= 1e-5


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 1000, 4096, LONG])
def test_what_has_not_underflowed_is_kept(isa: str, length: int) -> None:
    rows = Rows.of(distant(1, length, 1.0, torch.tensor([-50.0])), head_dim=32)
    found, recomputed = rows.attend(UNIFIED)
    assert recomputed == 0
    assert rows.error(found) <= 1e-5


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush denormals")
@pytest.mark.parametrize("length", [1, 48])
def test_the_guard_holds_where_denormals_are_flushed(isa: str, length: int) -> None:
    """A denominator just below the largest float has a denormal reciprocal: flushed, it gave zeros."""
    rows = Rows.of(distant(5_000, length, 3.0, torch.linspace(-110, 110, 5_000)), heads=250)
    torch.set_flush_denormal(True)
    try:
        found, _ = rows.attend(UNIFIED)
    finally:
        torch.set_flush_denormal(False)
    assert rows.error(found) <= 1e-5


# Check 6.
@pytest.mark.parametrize("outlier", [-1000.0, -torch.inf])
@pytest.mark.parametrize("mode", SoftmaxMode)
def test_low_outliers_do_no_harm(isa: str, mode: SoftmaxMode, outlier: float) -> None:
    scores = torch.randn(40, 1000) * 3
    scores[torch.rand(40, 1000) < 0.01] = outlier
    # Whole blocks and whole splits too, among them the first.
    scores[0, :16] = scores[1, :512] = scores[2, 512:] = outlier
    rows = Rows.of(scores, heads=8)
    found, recomputed = rows.attend(mode)
    assert recomputed == 0
    assert rows.error(found) <= 1e-5


@pytest.mark.parametrize("mode", SoftmaxMode)
@pytest.mark.parametrize("length", [1, 16, 40, 700])
def test_a_fully_masked_row_is_zero(isa: str, mode: SoftmaxMode, length: int) -> None:
    scores = torch.zeros(4, length)
    scores[1] = scores[2] = -torch.inf
    found, _ = Rows.of(scores, heads=2).attend(mode)
    assert not found[1:3].any()
    assert found[0].all()
    assert found[3].all()


def llama_like(rows: int, length: int) -> torch.Tensor:
    """Scores as the paper's figure shows them for Llama2-7B: 99.99 % in (-16.8, 6.5), the others to -70 or +40."""
    scores = (torch.randn(rows, length) * 3 - 5).clamp(-16.79, 6.49)
    outside = torch.rand(rows, length) < 1e-4
    tails = torch.where(
        torch.rand(rows, length) < 0.5,
        -torch.rand(rows, length) * 53.2 - 16.8,
        torch.rand(rows, length) * 33.5 + 6.5,
    )
    return torch.where(outside, tails, scores)


# Check 7.
@pytest.mark.parametrize(
    ("length", "count"),
    [(128, 100_000), (1024, 5_000), (32768, 100), pytest.param(LONG, 200, marks=pytest.mark.slow)],
)
def test_no_row_of_a_language_model_is_computed_again(length: int, count: int) -> None:
    heads = min(count, 2_560_000 // length)
    for _ in range(count // heads):
        rows = Rows.of(llama_like(heads, length), heads=heads)
        found, recomputed = rows.attend(UNIFIED)
        assert recomputed == 0
        assert rows.error(found) <= 1e-5


@pytest.mark.parametrize(("length", "count", "share"), [(1024, 20_000, 0.097), (32768, 500, 0.962)])
def test_the_guard_on_elements_would_compute_many_again(length: int, count: int, share: float) -> None:
    """The paper's guard, for comparison: a row is given up if one of its scores leaves the interval."""
    found = 0
    for _ in range(10):
        scores = llama_like(count // 10, length).numpy()
        found += np.any((scores <= -16.8) | (scores >= 6.5), axis=-1).sum()
    assert abs(found / count - share) < 6 * (share * (1 - share) / count) ** 0.5


# Check 8.
@pytest.mark.parametrize("length", [16, 100, 2048])
def test_rows_as_wide_as_those_of_opt_are_all_corrected(isa: str, length: int) -> None:
    count = 200_000 // length // 50 * 50
    low, high = -torch.rand(count) * 400 - 65, torch.rand(count) * 273 + 90
    rows = Rows.of(distant(count, length, 60.0, torch.where(torch.rand(count) < 0.5, low, high)), heads=50)
    found, recomputed = rows.attend(UNIFIED)
    assert recomputed == count
    # Scores of 400 are known to 2^-16, and their exponentials accordingly.
    assert rows.error(found) <= 5e-5


# Check 9. float16 weights would not do (D would have to stay within 11), so none are used: they are float32 or, where
# the processor multiplies pairs of bfloat16, bfloat16, which has the same range. The error does not depend on phi.
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 5e-3), (torch.float16, 1e-3)])
def test_sixteen_bits(isa: str, dtype: torch.dtype, bound: float) -> None:
    rows = Rows.of(torch.randn(4, 4096) * 3, heads=4, head_dim=64, dtype=dtype)
    most = rows.scores.double().max().item()
    for distance in (-50, -17, 0, 17, 40, 60, 76):
        found, recomputed = rows.attend(UNIFIED, most - distance)
        assert recomputed == 0
        assert rows.error(found) <= bound, f"D = {distance}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_no_sixteen_bit_row_out_of_range_is_missed(isa: str, dtype: torch.dtype) -> None:
    rows = Rows.of(distant(5_000, 33, 3.0, torch.rand(5_000) * 300 - 150), heads=250, dtype=dtype)
    found, recomputed = rows.attend(UNIFIED)
    assert rows.error(found) <= 2.0**-7
    check_count(rows, 0.0, recomputed, 0.01)


# Counting.
def test_rows_computed_again_are_counted_exactly() -> None:
    """One count for all calls, and nothing is counted in the other modes."""
    cache = PagedKVCache(2, 8, 16, 2, 4, torch.float32)
    cache.keys[1][:, 0, :, 0] = 200.0
    cache.keys[1][:, 1, :, 0] = 2.0
    cache.values[1].fill_(1.0)
    # Tiles of many queries, and splits of one query's keys.
    layout = PagedLayout.build([], [20, 1], [30, 90], [[0, 1], [2, 3, 4, 5, 6, 7]])
    query = torch.zeros(21, 6, 4)
    query[..., 0] = 1
    count = torch.zeros(1, dtype=torch.int64)
    phi = torch.tensor([0.0, 0.0, 200.0, 0.0, 200.0, 0.0])
    for call in range(1, 4):
        found = paged_attention(query, cache, 1, layout, 1.0, softmax=Softmax(UNIFIED, phi, count))
        # Of head 0's group two are out of reach, of head 1's group one.
        assert count.item() == call * 21 * 3
        assert (found - 1).abs().max() < 1e-5
    for mode in (SoftmaxMode.ONLINE, SoftmaxMode.LAZY):
        paged_attention(query, cache, 1, layout, 1.0, softmax=Softmax(mode, phi, count))
    assert count.item() == 3 * 21 * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("queries", "length"), [(1, 5), (1, 400), (1, 3000), (20, 400)])
def test_the_modes_agree_to_the_last_bit(isa: str, queries: int, length: int, dtype: torch.dtype) -> None:
    """Whatever is subtracted is rounded to a power of four, so that the modes' sums differ by an exact factor.

    Of the six heads of a group two are out of the range of mode unified.
    """
    keys, values = (torch.randn(2, 1, 1, length, 64) * 3).to(dtype)
    layout = PagedLayout.build([], [queries], [length], [[0]])
    query = torch.randn(queries, 6, 64).to(dtype)
    phi = torch.rand(6) * 40 - 20
    phi[1], phi[4] = 150.0, -150.0
    found = []
    for mode, expected in ((SoftmaxMode.ONLINE, 0), (SoftmaxMode.LAZY, 0), (UNIFIED, 2 * queries)):
        output, recomputed = cpu_attention(query, keys, values, layout, 0.1, None, None, Softmax(mode, phi))
        assert recomputed == expected
        found.append(output)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
