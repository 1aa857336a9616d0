"""What is written to a slot is what lies there."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.data())
def test_written_tokens_lie_in_their_slots(num_pages: int, page_size: int, data: st.DataObject) -> None:
    cache = PagedKVCache(2, num_pages, page_size, 3, 4, torch.bfloat16)
    count = data.draw(st.integers(0, num_pages * page_size))
    slots = torch.randperm(num_pages * page_size)[:count]
    keys, values = torch.randn(2, count, 3, 4).to(torch.bfloat16)
    cache.write(1, slots, keys, values)
    for slot, key, value in zip(slots.tolist(), keys, values, strict=True):
        assert torch.equal(cache.keys[1][slot // page_size, slot % page_size], key)
        assert torch.equal(cache.values[1][slot // page_size, slot % page_size], value)
    assert not cache.keys[0].any()
    assert cache.values[1].flatten(0, 1).any(-1).any(-1).sum() <= count


def test_bytes_per_page_is_what_a_page_takes() -> None:
    cache = PagedKVCache(3, 7, 16, 2, 8, torch.bfloat16)
    total = sum(tensor.nbytes for tensor in cache.keys + cache.values)
    assert PagedKVCache.bytes_per_page(3, 16, 2, 8, torch.bfloat16) * 7 == total


def test_pages_in_a_row_are_recognized() -> None:
    pages = tuple(torch.tensor(ids) for ids in ([4, 5, 6], [2], [3, 5], [6, 5]))
    layout = PagedLayout(torch.empty(0, dtype=torch.long), (0, 1, 2, 3, 4), (9, 1, 5, 5), pages)
    assert layout.first_pages == (4, 2, None, None)
