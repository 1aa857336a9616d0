"""Paged attention against the plain reference, for random batches of sequences in scattered pages."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lapidist.kernels import attention, reference
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout

TOLERANCES = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


@dataclass(frozen=True)
class Case:
    """Query and context lengths of each sequence, and the shape of the heads."""

    lengths: list[tuple[int, int]]
    page_size: int
    kv_heads: int
    group: int
    head_dim: int
    window: int | None
    softcap: float | None
    dtype: torch.dtype
    scattered: bool
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    lengths = []
    for _ in range(draw(st.integers(1, 4))):
        query = draw(st.one_of(st.just(1), st.integers(1, 40)))
        lengths.append((query, query + draw(st.one_of(st.just(0), st.integers(0, 60)))))
    return Case(
        lengths=lengths,
        page_size=draw(st.sampled_from([1, 3, 16])),
        kv_heads=draw(st.integers(1, 3)),
        group=draw(st.integers(1, 4)),
        head_dim=draw(st.sampled_from([2, 8, 20, 64])),
        window=draw(st.one_of(st.none(), st.integers(1, 50))),
        softcap=draw(st.one_of(st.none(), st.floats(0.5, 50.0))),
        dtype=draw(st.sampled_from(list(TOLERANCES))),
        scattered=draw(st.booleans()),
        seed=draw(st.integers(0, 1 << 30)),
    )


def build(case: Case) -> tuple[Tensor, PagedKVCache, PagedLayout, list[tuple[Tensor, Tensor]]]:
    """Queries, a cache that holds the sequences (and junk elsewhere), and their keys and values laid out plainly."""
    torch.manual_seed(case.seed)
    counts = [-(-kv // case.page_size) for _, kv in case.lengths]
    pages = torch.randperm(sum(counts)) if case.scattered else torch.arange(sum(counts))
    cache = PagedKVCache(2, sum(counts), case.page_size, case.kv_heads, case.head_dim, case.dtype)
    for layer in range(2):
        cache.keys[layer].normal_()
        cache.values[layer].normal_()
    plain, starts = [], [0]
    for (query, kv), own in zip(case.lengths, pages.split(counts), strict=True):
        keys, values = (torch.randn(kv, case.kv_heads, case.head_dim).to(case.dtype) for _ in range(2))
        positions = torch.arange(kv)
        cache.write(
            1, own[positions // case.page_size] * case.page_size + positions % case.page_size, keys, values
        )
        plain.append((keys, values))
        starts.append(starts[-1] + query)
    layout = PagedLayout(
        slots=torch.empty(0, dtype=torch.long),
        query_starts=tuple(starts),
        kv_lengths=tuple(kv for _, kv in case.lengths),
        page_ids=pages.split(counts),
    )
    query = torch.randn(starts[-1], case.kv_heads * case.group, case.head_dim).to(case.dtype)
    return query, cache, layout, plain


@settings(max_examples=150, deadline=None)
@given(cases())
def test_equals_the_reference(case: Case) -> None:
    query, cache, layout, plain = build(case)
    scale = case.head_dim**-0.5 * 1.5
    found = attention.paged_attention(query, cache, 1, layout, scale, case.window, case.softcap)
    assert found.shape == query.shape
    assert found.dtype == case.dtype
    for index, (keys, values) in enumerate(plain):
        span = slice(layout.query_starts[index], layout.query_starts[index + 1])
        expected = reference.attention(query[span], keys, values, scale, case.window, case.softcap)
        assert (found[span].double() - expected).abs().max() < TOLERANCES[case.dtype]


@settings(max_examples=40, deadline=None)
@given(cases())
def test_blocks_of_queries_and_keys_change_nothing(case: Case) -> None:
    query, cache, layout, _ = build(case)
    arguments = (query, cache, 1, layout, 0.3, case.window, case.softcap)
    whole = attention.paged_attention(*arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_SCORES_PER_BLOCK", 200)
        patch.setattr(attention, "_MASK_PER_BLOCK", 100)
        patch.setattr(attention, "_KEYS_PER_PRODUCT", 7)
        in_blocks = attention.paged_attention(*arguments)
    assert (whole - in_blocks).abs().max() < TOLERANCES[case.dtype]


@settings(max_examples=60, deadline=None)
@given(cases())
def test_counts_the_flops_of_what_queries_see(case: Case) -> None:
    query, cache, layout, _ = build(case)
    with FlopCounterMode(display=False) as counter:
        attention.paged_attention(query, cache, 1, layout, 0.3, case.window, case.softcap)
    expected = 0
    for queries, kv in case.lengths:
        visible = kv if case.window is None else min(kv, case.window - 1 + queries)
        expected += 4 * case.kv_heads * case.group * case.head_dim * queries * visible
    assert counter.get_total_flops() == expected


@settings(max_examples=40, deadline=None)
@given(cases())
def test_company_does_not_matter(case: Case) -> None:
    query, cache, layout, _ = build(case)
    together = attention.paged_attention(query, cache, 1, layout, 0.3, case.window, case.softcap)
    for index, (queries, kv) in enumerate(case.lengths):
        span = slice(layout.query_starts[index], layout.query_starts[index + 1])
        alone = PagedLayout(layout.slots, (0, queries), (kv,), (layout.page_ids[index],))
        found = attention.paged_attention(query[span], cache, 1, alone, 0.3, case.window, case.softcap)
        # Sequences that decode together are summed in another order than one that decodes alone.
        assert (found - together[span]).abs().max() < TOLERANCES[case.dtype]


def test_no_sequences() -> None:
    cache = PagedKVCache(1, 1, 4, 2, 8, torch.float32)
    layout = PagedLayout(torch.empty(0, dtype=torch.long), (0,), (), ())
    assert attention.paged_attention(torch.empty(0, 4, 8), cache, 0, layout, 1.0).shape == (0, 4, 8)
