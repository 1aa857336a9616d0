"""Row maxima against scores written down in full."""

import random

import pytest
import torch
from torch import Tensor

from lapidist.kernels import row_maxima as module
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.row_maxima import row_maxima, score_blocks

KV_HEADS, HEAD_DIM, PAGE_SIZE, SCALE = 2, 8, 4, 0.3
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def case(query_lengths: list[int], kv_lengths: list[int], group: int) -> tuple[Tensor, Tensor, PagedLayout]:
    """Random queries, and a cache whose pages were dealt at random; pages of nobody hold large keys."""
    counts = [-(-length // PAGE_SIZE) for length in kv_lengths]
    order = random.sample(range(sum(counts) + 3), sum(counts))
    pages = []
    for count in counts:
        pages.append(order[:count])
        del order[:count]
    keys = torch.randn(sum(counts) + 3, KV_HEADS, PAGE_SIZE, HEAD_DIM)
    for unused in set(range(len(keys))) - {page for own in pages for page in own}:
        keys[unused] = 1e6
    query = torch.randn(sum(query_lengths), KV_HEADS * group, HEAD_DIM)
    return query, keys, PagedLayout.build([], query_lengths, kv_lengths, pages)


def expected(
    query: Tensor, keys: Tensor, layout: PagedLayout, window: int | None, softcap: float | None
) -> Tensor:
    found = []
    starts, group = layout.query_starts.tolist(), query.shape[1] // KV_HEADS
    for index, length in enumerate(layout.kv_lengths.tolist()):
        own = keys[layout.page_table[index].long()].transpose(1, 2).reshape(-1, KV_HEADS, HEAD_DIM)[:length]
        own = own.repeat_interleave(group, 1).double()
        queries = query[starts[index] : starts[index + 1]].double()
        for number, row in enumerate(queries):
            position = length - len(queries) + number
            first = 0 if window is None else max(0, position - window + 1)
            scores = torch.einsum("hd,khd->hk", row, own[first : position + 1]) * SCALE
            found.append((scores if softcap is None else softcap * (scores / softcap).tanh()).amax(-1))
    return torch.stack(found)


@pytest.mark.parametrize("window", [None, 1, 5])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("blocks", [(128, 1024), (3, 5)])
def test_maxima_of_a_mixed_batch(
    window: int | None,
    softcap: float | None,
    group: int,
    blocks: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_QUERIES", blocks[0])
    monkeypatch.setattr(module, "_KEYS", blocks[1])
    query, keys, layout = case([1, 13, 0, 4], [17, 13, 6, 11], group)
    found = row_maxima(query, keys, layout, SCALE, window, softcap)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected(query, keys, layout, window, softcap), **CLOSE)


def test_blocks_are_bounded_and_cover_every_visible_score_once() -> None:
    query, keys, layout = case([300], [2500], 2)
    visible = 0
    for tokens, scores in score_blocks(query, keys, layout, SCALE, window=1500):
        assert scores.shape[0] == 2 * KV_HEADS
        assert scores.shape[1] == tokens.stop - tokens.start <= 128
        assert scores.shape[2] <= 1024
        visible += int(scores.isfinite().sum())
    assert visible == 300 * 1500 * 2 * KV_HEADS


def test_sixteen_bit_inputs() -> None:
    query, keys, layout = case([9], [20], 2)
    query, keys = query.bfloat16(), keys.bfloat16()
    found = row_maxima(query, keys, layout, SCALE)
    torch.testing.assert_close(found.double(), expected(query, keys, layout, None, None), **CLOSE)
