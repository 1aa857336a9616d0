"""What is written to a slot is what lies there."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.kv_quantization import pack_pages, quantize_kv, unpack_pages
from tests.kernels.thread_count import thread_count

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def bits(tensor: Tensor) -> Tensor:
    """As integers, of which every one equals itself."""
    return tensor.view(torch.int32 if tensor.itemsize == 4 else torch.int16)


@settings(max_examples=60, deadline=None)
@given(
    num_pages=st.integers(1, 6),
    page_size=st.sampled_from([1, 2, 3, 5, 16, 64]),
    kv_heads=st.integers(1, 5),
    head_dim=st.sampled_from([1, 2, 3, 7, 64, 80, 128]),
    dtype=st.sampled_from(DTYPES),
    is_fused=st.booleans(),
    seed=st.integers(0, 1 << 30),
    data=st.data(),
)
def test_written_tokens_lie_in_their_slots_and_nothing_else_changes(
    isa: str,
    num_pages: int,
    page_size: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    is_fused: bool,
    seed: int,
    data: st.DataObject,
) -> None:
    torch.manual_seed(seed)
    cache = PagedKVCache(2, num_pages, page_size, kv_heads, head_dim, dtype)
    for tensor in cache.keys + cache.values:
        tensor.normal_()
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values)]
    count = data.draw(st.integers(0, num_pages * page_size))
    slots = torch.randperm(num_pages * page_size)[:count]
    if is_fused:
        both = torch.randn(count, 2 * kv_heads + 3, head_dim).to(dtype)
        keys, values = both[:, 1 : 1 + kv_heads], both[:, -kv_heads:]
    else:
        keys, values = torch.randn(2, count, kv_heads, head_dim).to(dtype)
    cache.write(1, slots, keys, values)
    for expected, new in ((before[1], keys), (before[3], values)):
        for slot, row in zip(slots.tolist(), new, strict=True):
            expected[slot // page_size, :, slot % page_size] = row
    for found, expected in zip((*cache.keys, *cache.values), before, strict=True):
        assert torch.equal(bits(found), bits(expected))


def test_bits_are_kept(isa: str) -> None:
    """NaNs with their payload, infinities and denormals too: a copy is no arithmetic."""
    every = torch.arange(-(1 << 15), 1 << 15).short().view(torch.bfloat16).reshape(-1, 4, 64)
    cache = PagedKVCache(1, 16, 16, 4, 64, torch.bfloat16)
    cache.write(0, torch.arange(len(every)), every, every.flip(0))
    assert torch.equal(bits(cache.keys[0].transpose(1, 2).reshape(every.shape)), bits(every))
    assert torch.equal(bits(cache.values[0].transpose(1, 2).reshape(every.shape)), bits(every.flip(0)))


@pytest.mark.parametrize("count", [63, 64, 65, 300])
def test_threads_share_the_tokens(count: int) -> None:
    keys, values = torch.randn(2, count, 2, 8)
    slots = torch.randperm(320)[:count]
    written = []
    for number in (1, 2, 5):
        cache = PagedKVCache(1, 20, 16, 2, 8, torch.float32)
        with thread_count(number):
            cache.write(0, slots, keys, values)
        written.append(cache)
    for cache in written[1:]:
        assert torch.equal(cache.keys[0], written[0].keys[0])
        assert torch.equal(cache.values[0], written[0].values[0])


@settings(max_examples=40, deadline=None)
@given(
    kv_bits=st.sampled_from([8, 4]),
    num_pages=st.integers(1, 6),
    page_size=st.sampled_from([1, 2, 3, 5, 16, 64]),
    kv_heads=st.integers(1, 5),
    head_dim=st.sampled_from([8, 64, 80, 128]),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 1 << 30),
    data=st.data(),
)
def test_quantized_tokens_lie_in_their_slots_and_nothing_else_changes(
    isa: str,
    kv_bits: int,
    num_pages: int,
    page_size: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    seed: int,
    data: st.DataObject,
) -> None:
    torch.manual_seed(seed)
    cache = PagedKVCache(2, num_pages, page_size, kv_heads, head_dim, dtype, bits=kv_bits)
    for tensor in cache.keys + cache.values:
        tensor.random_(0, 256)
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values)]
    count = data.draw(st.integers(0, num_pages * page_size))
    slots = torch.randperm(num_pages * page_size)[:count]
    both = torch.randn(count, 2 * kv_heads + 3, head_dim).to(dtype)
    keys, values = both[:, 1 : 1 + kv_heads], both[:, -kv_heads:]
    cache.write(1, slots, keys, values)
    for index, new in ((1, keys), (3, values)):
        rows = unpack_pages(before[index], head_dim, kv_bits)
        written = quantize_kv(new, kv_bits)
        for own, tensor in (
            (rows.codes, written.codes),
            (rows.scales, written.scales),
            (rows.zeros, written.zeros),
        ):
            own[slots // page_size, :, slots % page_size] = tensor
        before[index] = pack_pages(rows)
    for found, expected in zip((*cache.keys, *cache.values), before, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("kv_bits", [16, 8, 4])
def test_numbers_are_what_was_written_but_for_rounding(kv_bits: int) -> None:
    cache = PagedKVCache(2, 3, 16, 2, 64, torch.bfloat16, bits=kv_bits)
    keys, values = torch.randn(2, 40, 2, 64).bfloat16()
    slots = torch.randperm(48)[:40]
    cache.write(1, slots, keys, values)
    for pages, rows in zip(cache.numbers(1), (keys, values), strict=True):
        found = pages[slots // 16, :, slots % 16].float()
        if kv_bits == 16:
            assert torch.equal(found, rows.float())
        else:
            assert torch.equal(found, quantize_kv(rows, kv_bits).dequantize())


def test_heads_before_tokens() -> None:
    """A transposed view, whose heads do not lie side by side."""
    keys, values = torch.randn(2, 3, 5, 8).transpose(1, 2)
    cache = PagedKVCache(1, 2, 4, 3, 8, torch.float32)
    cache.write(0, torch.arange(5), keys, values)
    assert torch.equal(cache.keys[0].transpose(1, 2).reshape(8, 3, 8)[:5], keys)
    assert torch.equal(cache.values[0].transpose(1, 2).reshape(8, 3, 8)[:5], values)


@pytest.mark.parametrize("wrong", [0, 1])
def test_the_dtype_must_be_that_of_the_cache(wrong: int) -> None:
    cache = PagedKVCache(1, 1, 4, 2, 8, torch.bfloat16)
    new = [torch.zeros(1, 2, 8, dtype=torch.float32 if i == wrong else torch.bfloat16) for i in range(2)]
    with pytest.raises(TypeError, match="make them one dtype"):
        cache.write(0, torch.tensor([0]), *new)


def test_keys_and_values_that_are_quantized_must_be_of_one_dtype() -> None:
    cache = PagedKVCache(1, 1, 4, 2, 8, torch.bfloat16, bits=4)
    keys = torch.zeros(1, 2, 8)
    with pytest.raises(TypeError, match="make them one dtype"):
        cache.write(0, torch.tensor([0]), keys, keys.half())


@pytest.mark.parametrize(("kv_bits", "head_dim"), [(16, 3), (16, 8), (8, 8), (4, 8), (4, 128)])
def test_bytes_per_page_is_what_a_page_takes(kv_bits: int, head_dim: int) -> None:
    cache = PagedKVCache(3, 7, 16, 2, head_dim, torch.bfloat16, bits=kv_bits)
    total = sum(tensor.nbytes for tensor in cache.keys + cache.values)
    assert PagedKVCache.bytes_per_page(3, 16, 2, head_dim, torch.bfloat16, kv_bits) * 7 == total


def test_a_page_of_four_bits_has_the_published_size_but_for_the_zeros() -> None:
    """64 tokens, 8 heads of 128 channels: 34,816 bytes of keys, and as many of values (QServe, arXiv 2405.04532), of
    which zeros are 1,024; ours take half of that."""
    cache = PagedKVCache(1, 3, 64, 8, 128, torch.bfloat16, bits=4)
    assert cache.keys[0][0].nbytes == cache.values[0][0].nbytes == 34_816 - 512


@pytest.mark.parametrize(("head_dim", "least"), [(64, 3.65), (128, 3.82)])
def test_how_many_times_the_tokens_four_bits_hold(head_dim: int, least: float) -> None:
    plain, cut = (
        PagedKVCache.bytes_per_page(16, 16, 8, head_dim, torch.bfloat16, kv_bits) for kv_bits in (16, 4)
    )
    assert plain / cut >= least


def test_a_cache_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="kv_bits must be 16, 8 or 4, got 5"):
        PagedKVCache(1, 1, 16, 1, 64, torch.float32, bits=5)
    with pytest.raises(ValueError, match="use kv_bits=16"):
        PagedKVCache.bytes_per_page(1, 16, 1, 20, torch.float32, 4)
    with pytest.raises(ValueError, match="a KV cache of 4 bits runs on a CPU, not on cuda"):
        PagedKVCache(1, 1, 16, 1, 64, torch.float16, "cuda", 4)
