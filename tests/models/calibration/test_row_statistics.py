"""Statistics of row maxima against all scores of every family, written down."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.models.calibration.row_statistics import RowStatistics
from lapidist.models.calibration.sequence_run import SequenceRun
from lapidist.models.decoder import Decoder
from lapidist.models.load import load_decoder
from tests.family_checkpoints import VARIANTS, build, save

TOKENS = 50


class Everything:
    """Keeps what attention gets, as it would be without pages."""

    def __init__(self) -> None:
        self.queries: dict[int, list[Tensor]] = {}
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def observe(self, layer: int, query: Tensor, cache: PagedKVCache, layout: PagedLayout) -> None:
        self.queries.setdefault(layer, []).append(query.double().clone())
        length = int(layout.kv_lengths[0])
        for kept, pages in ((self.keys, cache.keys[layer]), (self.values, cache.values[layer])):
            kept[layer] = pages[layout.page_table[0].long()].transpose(1, 2).flatten(0, 1)[:length].double()

    def row_maxima(self, decoder: Decoder, layer: int) -> Tensor:
        """``[tokens, heads]``"""
        config = decoder.config
        keys = self.keys[layer].repeat_interleave(config.num_heads // config.num_kv_heads, 1)
        scores = torch.einsum("qhd,khd->qhk", torch.cat(self.queries[layer]), keys) * config.attention_scale
        if config.attention_softcap is not None:
            scores = config.attention_softcap * torch.tanh(scores / config.attention_softcap)
        distance = torch.arange(len(keys))[:, None] - torch.arange(len(keys))
        hidden = distance < 0
        if config.sliding_windows[layer] is not None:
            hidden |= distance >= config.sliding_windows[layer]
        return scores.masked_fill(hidden[:, None], float("-inf")).amax(-1)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_family(name: str, tmp_path: Path) -> None:
    decoder = load_decoder(save(build(VARIANTS[name], seed=5), tmp_path))
    tokens = torch.randint(131, (TOKENS,)).tolist()
    statistics, everything = RowStatistics(decoder.config), Everything()
    run = SequenceRun(decoder, TOKENS)
    list(run.run(tokens, everything.observe))
    list(run.run(tokens, statistics.observe))
    assert statistics.rows_per_head == TOKENS - 1
    for layer in range(decoder.config.num_layers):
        maxima = everything.row_maxima(decoder, layer)[1:]  # the first token is left out
        close = {"atol": 1e-3, "rtol": 1e-4}
        torch.testing.assert_close(statistics.lowest[layer].double(), maxima.amin(0), **close)
        torch.testing.assert_close(statistics.highest[layer].double(), maxima.amax(0), **close)
        median = statistics.quantile(0.5)[layer].double()
        assert (median - maxima.median(0).values).abs().max() <= 0.5
        largest = everything.values[layer].abs().max()
        torch.testing.assert_close(statistics.largest_value[layer].double(), largest, **close)


def test_maxima_by_context_and_in_a_batch(tmp_path: Path) -> None:
    """Rows of several sequences, which continue at different places, go to their buckets."""
    decoder = load_decoder(save(build(VARIANTS["llama"], seed=1), tmp_path))
    statistics = RowStatistics(decoder.config)
    cache = PagedKVCache(3, 80, 16, 2, 8, torch.float32)
    cache.values[1][:] = torch.randn_like(cache.values[1])
    query = torch.zeros(4, 6, 8)
    query[1] = query[3] = 1.0
    cache.keys[1][:] = 2.0
    # The new tokens stand at 127, 128 (of 0..) and 600, 601.
    layout = PagedLayout.build(
        [127, 128, 640 + 600, 640 + 601], [2, 2], [129, 602], [list(range(40)), list(range(40, 80))]
    )
    statistics.observe(1, query, cache, layout)
    score = 8 * 2.0 * decoder.config.attention_scale
    highest = statistics.highest_by_context[1, 0]
    assert highest[[0, 1, 3]].tolist() == pytest.approx([0.0, score, score])
    assert statistics.lowest_by_context[1, 0][[0, 1, 3]].tolist() == pytest.approx([0.0, score, 0.0])
    assert highest[2].isinf()
    assert highest[4:].isinf().all()


def test_quantiles_of_many_rows(tmp_path: Path) -> None:
    decoder = load_decoder(save(build(VARIANTS["llama"], seed=1), tmp_path))
    statistics = RowStatistics(decoder.config)
    maxima = torch.randn(20_000, 6) * torch.tensor([1.0, 3.0, 10.0, 30.0, 200.0, 1000.0])
    for part in maxima.split(999):
        for layer in range(3):
            statistics._add(layer, part, torch.zeros(len(part), dtype=torch.long))
    assert statistics.rows_per_head == 20_000
    for share in (0.001, 0.25, 0.5, 0.9, 0.999):
        exact = maxima.quantile(share, 0)
        error = (statistics.quantile(share)[2] - exact).abs()
        assert (error[:4] <= 0.5 + 0.02 * exact[:4].abs()).all()
    # Beyond the bins only the extremes are known.
    assert statistics.quantile(0.999)[0, 5] == maxima[:, 5].max()
    assert statistics.quantile(0.0)[0, 0] == pytest.approx(maxima[:, 0].min().item(), abs=0.5)


def test_what_is_no_number_shows(tmp_path: Path) -> None:
    decoder = load_decoder(save(build(VARIANTS["llama"], seed=1), tmp_path))
    statistics = RowStatistics(decoder.config)
    maxima = torch.ones(5, 6)
    maxima[2, 3] = float("nan")
    statistics._add(0, maxima, torch.zeros(5, dtype=torch.long))
    assert statistics.highest[0].isnan().tolist() == [False, False, False, True, False, False]
