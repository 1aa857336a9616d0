"""Paged attention against the plain reference, for random batches of sequences in scattered pages."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lapidist.kernels import attention
from lapidist.kernels.cpu import attention as cpu_attention
from lapidist.kernels.cpu.library import native
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax, SoftmaxMode
from tests.kernels.paged_cases import HEAD_DIMS, TOLERANCES, Batch, Case, build, cases
from tests.kernels.thread_count import thread_count


def attend(batch: Batch, layout: PagedLayout | None = None, query: Tensor | None = None) -> Tensor:
    case = batch.case
    return attention.paged_attention(
        batch.query if query is None else query,
        batch.cache,
        1,
        layout or batch.layout,
        case.scale,
        case.window,
        case.softcap,
        case.softmax(),
    )


def check(found: Tensor, batch: Batch) -> None:
    """Equal to the reference, by error relative to the largest output."""
    assert found.shape == batch.query.shape
    assert found.dtype == batch.case.dtype
    expected = batch.expected()
    if expected.numel():
        error = (found.double() - expected).abs().max() / expected.abs().max()
        assert error < batch.case.tolerance, f"relative error {error:.2e} ({batch.case})"


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_equals_the_reference(isa: str, case: Case) -> None:
    batch = build(case)
    check(attend(batch), batch)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_every_head_dim_with_every_group(isa: str, head_dim: int, dtype: torch.dtype) -> None:
    seed = torch.seed() % (1 << 30)
    for group in [*range(1, 10), 71]:
        mode = SoftmaxMode(group % 3)
        case = Case([(1, 21), (3, 3)], 16, 2, group, head_dim, None, None, dtype, mode, False, "dense", seed)
        batch = build(case)
        check(attend(batch), batch)


@pytest.mark.parametrize("window", [None, 1, 16, 33])
@pytest.mark.parametrize("group", [1, 4, 7])
def test_tiles_of_queries_meet_without_a_seam(isa: str, group: int, window: int | None) -> None:
    seed = torch.seed() % (1 << 30)
    for queries in (7, 8, 9, 63, 64, 65, 200):
        lengths = [(queries, queries), (queries, queries + 37)]
        case = Case(
            lengths, 16, 1, group, 32, window, None, torch.float32, SoftmaxMode.LAZY, False, "fused", seed
        )
        batch = build(case)
        check(attend(batch), batch)


@settings(max_examples=40, deadline=None)
@given(case=cases(), split_tokens=st.sampled_from([1, 16, 48, 100, 512]))
def test_splits_of_keys_change_nothing(case: Case, split_tokens: int) -> None:
    batch = build(case)
    keys, values = batch.cache.keys[1], batch.cache.values[1]
    found, recomputed = cpu_attention.paged_attention(
        batch.query,
        keys,
        values,
        batch.layout,
        case.scale,
        case.window,
        case.softcap,
        case.softmax(),
        split_tokens=split_tokens,
    )
    check(found, batch)
    assert recomputed == 0, "no row of these leaves the range of float32"


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_threads_change_no_bit(case: Case) -> None:
    batch = build(case)
    with thread_count(1):
        expected = attend(batch)
    for count in (2, 3, 5):
        with thread_count(count):
            assert torch.equal(attend(batch), expected)


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_company_changes_no_bit(case: Case) -> None:
    batch = build(case)
    together = attend(batch)
    for index, (span, (queries, kv)) in enumerate(zip(batch.spans(), case.lengths, strict=True)):
        alone = PagedLayout.build([], [queries], [kv], [batch.layout.page_table[index].tolist()])
        assert torch.equal(attend(batch, alone, batch.query[span]), together[span])


@settings(max_examples=20, deadline=None)
@given(case=cases(), seed=st.integers(0, 1 << 30))
def test_neither_the_page_size_nor_the_pages_change_a_bit(case: Case, seed: int) -> None:
    batch = build(case)
    found = attend(batch)
    for page_size in (1, 5, 16, 64):
        moved = build(replace(case, page_size=page_size, seed=seed))
        for index, (keys, values) in enumerate(batch.plain):
            table = moved.layout.page_table[index]
            at = torch.arange(len(keys))
            moved.cache.write(1, table[at // page_size].long() * page_size + at % page_size, keys, values)
        again = replace(batch, cache=moved.cache, layout=moved.layout)
        assert torch.equal(attend(again), found)


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_counts_the_flops_of_what_queries_see(case: Case) -> None:
    batch = build(case)
    with FlopCounterMode(display=False) as counter:
        attend(batch)
    expected = 0
    for queries, kv in case.lengths:
        visible = kv if case.window is None else min(kv, case.window - 1 + queries)
        expected += 4 * case.heads * case.head_dim * queries * visible
    assert counter.get_total_flops() == expected


@pytest.mark.parametrize("mode", SoftmaxMode)
def test_a_row_without_context_is_zero(isa: str, mode: SoftmaxMode) -> None:
    cache = PagedKVCache(1, 2, 4, 2, 8, torch.float32)
    for tensor in cache.keys + cache.values:
        tensor.normal_()
    layout = PagedLayout.build([], [1, 1, 0, 2], [0, 3, 0, 0], [[], [1], [], []])
    found = attention.paged_attention(torch.randn(4, 4, 8), cache, 0, layout, 1.0, softmax=Softmax(mode))
    assert not found[0].any()
    assert not found[2:].any()
    assert found[1].all()


def test_no_sequences(isa: str) -> None:
    cache = PagedKVCache(1, 1, 4, 2, 8, torch.float32)
    layout = PagedLayout.build([], [], [], [])
    assert attention.paged_attention(torch.empty(0, 4, 8), cache, 0, layout, 1.0).shape == (0, 4, 8)


def test_sequences_without_new_tokens(isa: str) -> None:
    cache = PagedKVCache(1, 1, 4, 2, 8, torch.float32)
    layout = PagedLayout.build([], [0, 0], [3, 0], [[0], []])
    assert attention.paged_attention(torch.empty(0, 4, 8), cache, 0, layout, 1.0).shape == (0, 4, 8)


def test_a_page_table_may_be_part_of_a_wider_one(isa: str) -> None:
    lengths = [(1, 30), (2, 50)]
    batch = build(Case(lengths, 4, 2, 2, 16, None, None, torch.float32, SoftmaxMode.LAZY, False, "dense", 5))
    table = batch.layout.page_table
    wider = torch.cat([table, table.flip(0)], 1)[:, : table.shape[1]]
    assert not wider.is_contiguous()
    assert torch.equal(attend(batch, replace(batch.layout, page_table=wider)), attend(batch))


@pytest.mark.parametrize("odd_one", ["query", "keys", "values"])
def test_dtypes_must_be_one(odd_one: str) -> None:
    dtypes = {
        name: torch.bfloat16 if name == odd_one else torch.float32 for name in ("query", "keys", "values")
    }
    cache = PagedKVCache(1, 1, 4, 2, 8, torch.float32)
    cache.keys[0], cache.values[0] = cache.keys[0].to(dtypes["keys"]), cache.values[0].to(dtypes["values"])
    layout = PagedLayout.build([], [1], [1], [[0]])
    with pytest.raises(TypeError, match="make them one dtype"):
        attention.paged_attention(torch.zeros(1, 4, 8, dtype=dtypes["query"]), cache, 0, layout, 1.0)


def test_builds_agree(isa: str) -> None:
    """Each with the most portable one, closely: they differ in the order of sums and in fused multiplications."""
    case = Case(
        [(1, 300), (70, 90)], 16, 2, 3, 80, None, 20.0, torch.float32, SoftmaxMode.ONLINE, False, "dense", 7
    )
    batch = build(case)
    found = attend(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu_attention, "native", lambda: native("portable"))
        portable = attend(batch)
    assert (found - portable).abs().max() < 5e-6 * portable.abs().max()
