"""What is kept of activations, against the activations themselves."""

import pytest
import torch

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.quantization.statistics import AttentionStatistics, InputStatistics


@pytest.mark.parametrize("channels", [1, 40, 1024, 2500])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inputs(channels: int, dtype: torch.dtype) -> None:
    x = torch.randn(23, channels).to(dtype)
    statistics = InputStatistics(channels, with_hessian=True, sample_every=5)
    for part in x.split([7, 1, 15]):
        statistics(part)
    assert torch.equal(statistics.maxima, x.float().abs().amax(0))
    assert torch.equal(statistics.samples, x.float()[::5])
    expected = x.double().T @ x.double()
    hessian = statistics.hessian
    assert hessian is not None
    assert torch.equal(hessian, hessian.T)
    assert (hessian - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_no_hessian_unless_asked_for() -> None:
    statistics = InputStatistics(8, with_hessian=False, sample_every=1)
    statistics(torch.randn(3, 8))
    assert statistics.hessian is None


def test_keys_of_these_tokens_only() -> None:
    cache = PagedKVCache(1, 6, 4, 2, 8, torch.float32)
    cache.keys[0].fill_(100.0)  # of others
    keys, values = torch.randn(7, 2, 8), torch.randn(7, 2, 8)
    slots = [20, 21, 22, 23, 8, 9, 10]
    cache.write(0, torch.tensor(slots), keys, values)
    statistics = AttentionStatistics(4, 2, 8)
    layout = PagedLayout.build(slots[:4], [4], [4], [[5]], torch.device("cpu"))
    query = torch.randn(7, 4, 8)
    statistics(query[:4], cache, layout)
    assert torch.equal(statistics.key_maxima, keys[:4].abs().amax(0))
    layout = PagedLayout.build(slots[4:], [3], [3], [[2]], torch.device("cpu"))
    statistics(query[4:], cache, layout)
    assert torch.equal(statistics.key_maxima, keys.abs().amax(0))
    assert torch.equal(statistics.query_maxima, query.abs().amax(0))
