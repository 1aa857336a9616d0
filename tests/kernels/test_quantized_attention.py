"""Attention over codes against the plain reference over the numbers that they stand for."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lapidist.kernels import attention, reference
from lapidist.kernels.cpu import attention as cpu_attention
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax, SoftmaxMode
from tests.kernels.paged_cases import QUANTIZED_HEAD_DIMS, TOLERANCES, Case, build, cases
from tests.kernels.test_attention import attend, check
from tests.kernels.thread_count import thread_count

BITS = (4, 8)


@settings(max_examples=150, deadline=None)
@given(case=cases(BITS))
def test_equals_the_reference(isa: str, case: Case) -> None:
    batch = build(case)
    check(attend(batch), batch)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("head_dim", QUANTIZED_HEAD_DIMS)
def test_every_head_dim_with_every_group(isa: str, head_dim: int, bits: int, dtype: torch.dtype) -> None:
    seed = torch.seed() % (1 << 30)
    for group in [*range(1, 13), 71]:
        mode = SoftmaxMode(group % 3)
        lengths = [(1, 21), (3, 3)]
        batch = build(
            Case(lengths, 16, 2, group, head_dim, None, None, dtype, mode, False, "dense", seed, bits)
        )
        check(attend(batch), batch)


@settings(max_examples=30, deadline=None)
@given(case=cases(BITS), split_tokens=st.sampled_from([1, 16, 48, 512]))
def test_splits_of_keys_change_nothing(case: Case, split_tokens: int) -> None:
    batch = build(case)
    found, recomputed = cpu_attention.paged_attention(
        batch.query,
        batch.cache.keys[1],
        batch.cache.values[1],
        batch.layout,
        case.scale,
        case.window,
        case.softcap,
        case.softmax(),
        split_tokens=split_tokens,
        kv_bits=case.kv_bits,
    )
    check(found, batch)
    assert recomputed == 0


@settings(max_examples=30, deadline=None)
@given(case=cases(BITS))
def test_neither_threads_nor_company_change_a_bit(case: Case) -> None:
    batch = build(case)
    with thread_count(1):
        together = attend(batch)
    for count in (2, 3):
        with thread_count(count):
            assert torch.equal(attend(batch), together)
    for index, (span, (queries, kv)) in enumerate(zip(batch.spans(), case.lengths, strict=True)):
        alone = PagedLayout.build([], [queries], [kv], [batch.layout.page_table[index].tolist()])
        assert torch.equal(attend(batch, alone, batch.query[span]), together[span])


@settings(max_examples=20, deadline=None)
@given(case=cases(BITS), seed=st.integers(0, 1 << 30))
def test_paged_equals_contiguous_to_the_bit(case: Case, seed: int) -> None:
    """The same rows in pages of another size and order, at last in one page that holds a whole sequence."""
    batch = build(case)
    found = attend(batch)
    for page_size in (1, 5, 16, 64, 1024):
        moved = build(replace(case, page_size=page_size, seed=seed))
        for index, (keys, values) in enumerate(batch.written):
            table, at = moved.layout.page_table[index], torch.arange(len(keys))
            moved.cache.write(1, table[at // page_size].long() * page_size + at % page_size, keys, values)
        again = replace(batch, cache=moved.cache, layout=moved.layout)
        assert torch.equal(attend(again), found)


@pytest.mark.parametrize("tokens", [150, 700])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bits", BITS)
def test_prompts_in_chunks_equal_one_pass(isa: str, bits: int, dtype: torch.dtype, tokens: int) -> None:
    """A query sees the same codes whatever the chunks, and its sums are the same to the bit until keys are split."""
    kv_heads, group, head_dim = 2, 3, 64
    keys, values = torch.randn(2, tokens, kv_heads, head_dim).to(dtype)
    query = torch.randn(tokens, kv_heads * group, head_dim).to(dtype)
    pages = torch.randperm(50).tolist()
    slots = torch.tensor([pages[at // 16] * 16 + at % 16 for at in range(tokens)])
    results = []
    for lengths in ([tokens], [tokens - 80, 33, 9, 1, 30, 7], [tokens - 50] + [1] * 50):
        cache = PagedKVCache(1, 50, 16, kv_heads, head_dim, dtype, bits=bits)
        parts, done = [], 0
        for length in lengths:
            span = slice(done, done + length)
            done += length
            cache.write(0, slots[span], keys[span], values[span])
            layout = PagedLayout.build([], [length], [done], [pages])
            parts.append(attention.paged_attention(query[span], cache, 0, layout, head_dim**-0.5))
        results.append(torch.cat(parts))
    for found in results[1:]:
        unsplit = cpu_attention.SPLIT_TOKENS
        assert torch.equal(found[:unsplit], results[0][:unsplit])
        assert (found.double() - results[0]).abs().max() < TOLERANCES[dtype] * results[0].abs().max()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("queries", "length"), [(1, 5), (1, 3000), (20, 400)])
def test_the_modes_agree_to_the_last_bit(
    isa: str, queries: int, length: int, bits: int, dtype: torch.dtype
) -> None:
    """Two of six heads are out of the range of mode unified, and are computed again."""
    cache = PagedKVCache(1, 1, length, 1, 64, dtype, bits=bits)
    keys, values = (torch.randn(2, length, 1, 64) * 3).to(dtype)
    cache.write(0, torch.arange(length), keys, values)
    layout = PagedLayout.build([], [queries], [length], [[0]])
    query = torch.randn(queries, 6, 64).to(dtype)
    phi = torch.rand(6) * 40 - 20
    phi[1], phi[4] = 150.0, -150.0
    count = torch.zeros(1, dtype=torch.int64)
    found = [
        attention.paged_attention(query, cache, 0, layout, 0.125, softmax=Softmax(mode, phi, count))
        for mode in SoftmaxMode
    ]
    assert count.item() == 2 * queries
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("bits", BITS)
def test_equal_values_come_out_as_they_are(isa: str, bits: int, dtype: torch.dtype) -> None:
    """Rows of equal channels are exact, and scales that differ by orders of magnitude do not disturb one another."""
    batch = build(
        Case([(1, 200), (40, 60)], 16, 1, 4, 64, None, None, dtype, SoftmaxMode.LAZY, False, "dense", 3, bits)
    )
    for value in (0.0, 1.0, -0.375, 12_288.0, 2.0**-14):
        count = batch.cache.num_pages * 16
        rows = torch.full((count, 1, 64), value).to(dtype)
        batch.cache.write(1, torch.arange(count), rows, rows)
        found = attend(batch)
        assert (found.double() - value).abs().max() <= TOLERANCES[dtype] * abs(value)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_keys_far_from_zero(isa: str, bits: int, dtype: torch.dtype) -> None:
    """The product with the zero is much larger than the score: what remains must be right."""
    torch.manual_seed(torch.seed() % (1 << 30))
    cache = PagedKVCache(1, 8, 16, 1, 64, dtype, bits=bits)
    keys = (torch.randn(128, 1, 64) + torch.randn(128, 1, 1) * 30).to(dtype)
    values = (torch.randn(128, 1, 64) + 30).to(dtype)
    cache.write(0, torch.arange(128), keys, values)
    numbers = [part.transpose(1, 2).reshape(128, 1, 64) for part in cache.numbers(0)]
    query = torch.randn(5, 4, 64).to(dtype) / 8
    expected = reference.attention(query, *numbers, 0.125)
    layout = PagedLayout.build([], [5], [128], [list(range(8))])
    found = attention.paged_attention(query, cache, 0, layout, 0.125)
    assert (found.double() - expected).abs().max() < TOLERANCES[dtype] * 2 * expected.abs().max()


@pytest.mark.parametrize("bits", BITS)
def test_the_keys_of_a_row_that_is_not_finite_show(isa: str, bits: int) -> None:
    cache = PagedKVCache(1, 1, 16, 1, 64, torch.float32, bits=bits)
    rows = torch.randn(3, 1, 64)
    broken = rows.clone()
    broken[1, 0, 5] = torch.inf
    layout = PagedLayout.build([], [1], [3], [[0]])
    for keys, values in ((broken, rows), (rows, broken)):
        cache.write(0, torch.arange(3), keys, values)
        assert attention.paged_attention(torch.randn(1, 2, 64), cache, 0, layout, 1.0).isnan().all()


@settings(max_examples=20, deadline=None)
@given(case=cases(BITS))
def test_counts_the_flops_of_what_queries_see(case: Case) -> None:
    counts = []
    for bits in (16, case.kv_bits):
        with FlopCounterMode(display=False) as counter:
            attend(build(replace(case, kv_bits=bits)))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]
