"""The quantizer of keys and values: its error and its limits, the layout of pages, and that the native one is equal."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.kv_quantization import (
    QuantizedKV,
    check_kv_bits,
    pack_pages,
    page_bytes,
    quantize_kv,
    tokens_of_page,
    unpack_pages,
)

HEAD_DIMS = [8, 16, 24, 64, 80, 128, 256]
LARGEST = torch.finfo(torch.float16).max


def random_rows(head_dim: int, dtype: torch.dtype) -> Tensor:
    """``[rows, 1, head_dim]``: of many sizes, some far from zero, some with outliers, some constant."""
    magnitude = torch.logspace(-9, 6, 60)[:, None]
    rows = [torch.randn(60, head_dim) * magnitude, magnitude * (1 + 1e-3 * torch.randn(60, head_dim))]
    outliers = torch.randn(60, head_dim) * magnitude
    outliers[:, 0] *= 100
    rows += [outliers, -magnitude.expand(-1, head_dim), torch.zeros(1, head_dim), -torch.zeros(1, head_dim)]
    mixed = torch.zeros(1, head_dim)
    mixed[:, ::2] = -0.0
    most = torch.finfo(dtype).max
    extremes = torch.tensor([most, -most]).repeat(head_dim // 2)[None]
    return torch.cat([*rows, mixed, extremes, extremes.abs()]).clamp(-most, most).to(dtype)[:, None]


@settings(max_examples=80, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    head_dim=st.sampled_from(HEAD_DIMS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    log_magnitude=st.floats(-4, 4),
    log_offset=st.floats(-5, 5),
    seed=st.integers(0, 1 << 30),
)
def test_the_error_is_at_most_half_a_step(
    bits: int, head_dim: int, dtype: torch.dtype, log_magnitude: float, log_offset: float, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(30, head_dim) * 10**log_magnitude + torch.randn(30, 1) * 10**log_offset
    x = x.clamp(-LARGEST, LARGEST).to(dtype)
    found = quantize_kv(x, bits)
    step = found.scales.double().abs()[:, None]
    exact = (found.codes.double() - found.zeros.double()[:, None]) * found.scales.double()[:, None]
    # The quotient and its sum with the zero are rounded to float32, at 2048 steps by 2^-13 of one.
    assert ((exact - x.double()).abs() <= 0.5002 * step).all()
    least, most = x.double().aminmax(dim=-1, keepdim=True)
    wanted = torch.maximum((most - least) / (2**bits - 1), x.double().abs().amax(-1, keepdim=True) / 2048)
    assert (step[most > least] <= (wanted * (1 + 2.0**-10) + 2.0**-24)[most > least]).all()
    assert found.codes.max() <= 2**bits - 1


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_equal_channels_are_exact(bits: int) -> None:
    """All finite numbers of float16, and bfloat16 as far as float16 goes."""
    halves = torch.arange(-(1 << 15), 1 << 15).short().view(torch.float16)
    halves = halves[halves.isfinite()]
    brains = torch.arange(-(1 << 15), 1 << 15).short().view(torch.bfloat16)
    magnitude = brains.float().abs()
    brains = brains[(magnitude <= LARGEST) & (magnitude >= torch.finfo(torch.float16).tiny)]
    for numbers in (halves, brains):
        rows = numbers[:, None].expand(-1, 8)
        assert torch.equal(quantize_kv(rows, bits).dequantize(), rows.float())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_finite_rows_stay_finite_and_others_show(bits: int, dtype: torch.dtype) -> None:
    assert quantize_kv(random_rows(64, dtype), bits).dequantize().isfinite().all()
    for number in (torch.nan, torch.inf, -torch.inf):
        rows = torch.randn(2, 64).to(dtype)
        rows[1, 13] = number
        found = quantize_kv(rows, bits).dequantize()
        assert found[0].isfinite().all()
        assert found[1].isnan().all()


@pytest.mark.parametrize(("bits", "least"), [(4, 19.8), (8, 44.5)])
def test_signal_to_noise_of_normal_rows(bits: int, least: float) -> None:
    """20.0 dB of four bits with 128 channels is what a float zero gives."""
    x = torch.randn(2000, 128)
    noise = quantize_kv(x, bits).dequantize() - x
    assert 10 * torch.log10(x.square().sum() / noise.square().sum()) > least


def test_bytes_of_pages() -> None:
    assert page_bytes(1, 128, 4) == 68
    assert page_bytes(1, 64, 4) == 36
    assert page_bytes(1, 128, 8) == 132
    assert 8 * page_bytes(64, 128, 4) == 34_816
    # Llama-3-8B: keys and values of one token in 32 layers.
    assert PagedKVCache.bytes_per_page(32, 1, 8, 128, torch.bfloat16, 4) == 34_816
    assert PagedKVCache.bytes_per_page(32, 1, 8, 128, torch.bfloat16) == 131_072


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    head_dim=st.sampled_from(HEAD_DIMS),
    page_size=st.sampled_from([1, 2, 3, 16, 64]),
    seed=st.integers(0, 1 << 30),
)
def test_pages_are_unpacked_to_what_was_packed(bits: int, head_dim: int, page_size: int, seed: int) -> None:
    torch.manual_seed(seed)
    shape = (3, 2, page_size)
    codes = torch.randint(0, 1 << bits, (*shape, head_dim), dtype=torch.uint8)
    rows = QuantizedKV(codes, torch.randn(shape).half(), torch.randn(shape).half())
    pages = pack_pages(rows, bits)
    assert pages.shape == (3, 2, page_bytes(page_size, head_dim, bits))
    assert tokens_of_page(pages.shape[-1], head_dim, bits) == page_size
    found = unpack_pages(pages, head_dim, bits)
    for name in ("codes", "scales", "zeros"):
        assert torch.equal(getattr(found, name), getattr(rows, name))


@pytest.mark.parametrize("head_dim", [8, 64, 80, 128])
def test_the_layout_is_the_documented_one(head_dim: int) -> None:
    for bits in (4, 8):
        codes = torch.randint(0, 1 << bits, (2, head_dim), dtype=torch.uint8)
        page = pack_pages(
            QuantizedKV(codes, torch.tensor([1.5, -2.0]).half(), torch.tensor([3.0, 0.25]).half()), bits
        )
        row_bytes = head_dim * bits // 8
        words, parts = head_dim * bits // 16, 16 // bits
        for slot in range(2):
            for channel in range(head_dim):
                at = slot * row_bytes + 2 * (channel % words)
                word = int(page[at]) | int(page[at + 1]) << 8
                assert word >> channel // words * bits & (1 << bits) - 1 == codes[slot, channel]
        assert words * parts == head_dim
        parameters = page[2 * row_bytes :].view(torch.float16)
        assert parameters.tolist() == [1.5, -2.0, 3.0, 0.25]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("head_dim", HEAD_DIMS)
def test_the_native_quantizer_is_the_same_to_the_bit(
    isa: str, head_dim: int, bits: int, dtype: torch.dtype
) -> None:
    keys = random_rows(head_dim, dtype)
    values = keys.flip(0)
    cache = PagedKVCache(1, 1, len(keys), 1, head_dim, dtype, bits=bits)
    cache.write(0, torch.arange(len(keys)), keys, values)
    for found, rows in ((cache.keys[0], keys), (cache.values[0], values)):
        assert torch.equal(found, pack_pages(quantize_kv(rows.transpose(0, 1)[None], bits), bits))


@pytest.mark.parametrize("bits", [4, 8])
def test_the_native_quantizer_shows_what_is_not_finite(isa: str, bits: int) -> None:
    for number in (torch.nan, torch.inf, -torch.inf):
        rows = torch.randn(2, 1, 64)
        rows[1, 0, 40] = number
        cache = PagedKVCache(1, 1, 2, 1, 64, torch.float32, bits=bits)
        cache.write(0, torch.arange(2), rows, rows)
        keys, values = cache.numbers(0)
        for found in (keys, values):
            assert found[0, 0, 0].isfinite().all()
            assert found[0, 0, 1].isnan().all()


def test_what_there_is_not_is_named() -> None:
    for bits in (0, 2, 5, 32):
        with pytest.raises(ValueError, match="kv_bits must be 16, 8 or 4"):
            check_kv_bits(bits, 64)
    with pytest.raises(ValueError, match="multiple of 8 channels, these have 20"):
        check_kv_bits(4, 20)
    check_kv_bits(16, 3)
