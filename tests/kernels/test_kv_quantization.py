"""The quantizer of keys and values: its error and its limits, the layout of pages, and that the native one is equal."""

from itertools import product

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
    least = torch.finfo(dtype).tiny * torch.randn(20, head_dim)
    typical = torch.randn(400, head_dim) + torch.randn(head_dim)  # in which the search decides by little
    rows += [mixed, extremes, extremes.abs(), least, typical]
    return torch.cat(rows).clamp(-most, most).to(dtype)[:, None]


def steps_of(x: Tensor, bits: int) -> Tensor:
    """float64 ``[..., 1]``: the range of a row, zero included, over the codes, rounded up to a float16."""
    least, most = x.double().aminmax(dim=-1, keepdim=True)
    wanted = (most.clamp(min=0) - least.clamp(max=0)) / (2**bits - 1)
    return wanted * (1 + 2.0**-10) + 2.0**-24


def check_errors(x: Tensor, bits: int) -> None:
    """Half a step, and what the zero is rounded by: half of what its byte counts."""
    found = quantize_kv(x, bits)
    scales, zeros = found.scales.double()[:, None], found.zeros.double()[:, None] / 2 ** (8 - bits)
    exact = (found.codes.double() - zeros) * scales
    assert torch.equal(exact.float(), found.dequantize())
    error, step = (exact - x.double()).abs(), steps_of(x, bits)
    assert (error <= (0.54 if bits == 4 else 0.501) * step).all()
    varied = x.amax(-1) > x.amin(-1)
    assert (scales[varied] <= step[varied]).all()
    assert found.codes.max() <= 2**bits - 1


@settings(max_examples=80, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    head_dim=st.sampled_from(HEAD_DIMS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    log_magnitude=st.floats(-4, 4),
    log_offset=st.floats(-5, 5),
    seed=st.integers(0, 1 << 30),
)
def test_the_error_is_about_half_a_step(
    bits: int, head_dim: int, dtype: torch.dtype, log_magnitude: float, log_offset: float, seed: int
) -> None:
    torch.manual_seed(seed)
    x = torch.randn(30, head_dim) * 10**log_magnitude + torch.randn(30, 1) * 10**log_offset
    check_errors(x.clamp(-LARGEST, LARGEST).to(dtype), bits)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from([4, 8]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    row=st.lists(st.floats(-LARGEST, LARGEST, width=16), min_size=8, max_size=8),
    repeats=st.integers(1, 5),
)
def test_the_error_of_any_row(bits: int, dtype: torch.dtype, row: list[float], repeats: int) -> None:
    """A row of anything: zeros, signs, subnormals, one channel far from the others."""
    check_errors(torch.tensor(row * repeats)[None].to(dtype), bits)


def test_four_bits_take_the_best_of_four_grids() -> None:
    x = (torch.randn(300, 64) * torch.logspace(-3, 3, 300)[:, None]).double()
    least, most = x.aminmax(dim=-1, keepdim=True)
    half_step = (most - least) / 30
    errors = []
    for low, high in product((0, 1), repeat=2):
        wanted = (most - least - (low + high) * half_step) / 15
        nearest = wanted.half()
        scale = nearest.where(nearest >= wanted, nearest.nextafter(torch.tensor(torch.inf).half())).double()
        zero = (-(least + low * half_step) / scale * 16).round() / 16
        codes = (x / scale + zero).round().clamp(0, 15)
        errors.append(((codes - zero) * scale - x).square().sum(-1))
    found = (quantize_kv(x.float(), 4).dequantize().double() - x).square().sum(-1)
    # But for what float32 rounds to another code.
    assert (found <= 1.001 * torch.stack(errors).amin(0)).float().mean() > 0.98
    assert found.sum() < 0.92 * errors[0].sum(), "the choice must pay"


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


@pytest.mark.parametrize(("bits", "least"), [(4, 20.3), (8, 44.5)])
def test_signal_to_noise_of_normal_rows(bits: int, least: float) -> None:
    """20.0 dB of four bits with 128 channels is what codes from end to end give, with a float zero."""
    x = torch.randn(2000, 128)
    noise = quantize_kv(x, bits).dequantize() - x
    assert 10 * torch.log10(x.square().sum() / noise.square().sum()) > least


def test_bytes_of_pages() -> None:
    assert page_bytes(1, 128, 4) == 67
    assert page_bytes(1, 64, 4) == 35
    assert page_bytes(1, 128, 8) == 131
    assert 8 * page_bytes(64, 128, 4) == 34_304
    # Llama-3-8B: keys and values of one token in 32 layers.
    assert PagedKVCache.bytes_per_page(32, 1, 8, 128, torch.bfloat16, 4) == 34_304
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
    zeros = torch.randint(0, 256, shape, dtype=torch.uint8)
    rows = QuantizedKV(codes, torch.randn(shape).half(), zeros, bits)
    pages = pack_pages(rows)
    assert pages.shape == (3, 2, page_bytes(page_size, head_dim, bits))
    assert tokens_of_page(pages.shape[-1], head_dim, bits) == page_size
    found = unpack_pages(pages, head_dim, bits)
    for name in ("codes", "scales", "zeros"):
        assert torch.equal(getattr(found, name), getattr(rows, name))
    last = unpack_pages(pages[2], head_dim, bits)
    assert torch.equal(last.dequantize(), rows.dequantize()[2])


@pytest.mark.parametrize("head_dim", [8, 64, 80, 128])
def test_the_layout_is_the_documented_one(head_dim: int) -> None:
    heads, page_size = 2, 3
    for bits in (4, 8):
        codes = torch.randint(0, 1 << bits, (heads, page_size, head_dim), dtype=torch.uint8)
        scales, zeros = torch.randn(heads, page_size).half(), torch.randint(0, 256, (heads, page_size)).byte()
        rows = QuantizedKV(codes, scales, zeros, bits)
        page = pack_pages(rows).flatten()
        row_bytes, words = head_dim * bits // 8, head_dim * bits // 16
        for head in range(heads):
            for slot in range(page_size):
                row = head * page_size + slot
                scale = page[6 * row_bytes + 2 * row :][:2].clone().view(torch.float16)
                zero = page[6 * row_bytes + 12 + row].item() / (16 if bits == 4 else 1)
                for channel in range(head_dim):
                    at = row * row_bytes + 2 * (channel % words)
                    word = int(page[at]) | int(page[at + 1]) << 8
                    code = word >> channel // words * bits & (1 << bits) - 1
                    assert code == codes[head, slot, channel]
                    assert rows.dequantize()[head, slot, channel] == (code - zero) * scale.float()


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
        assert torch.equal(found, pack_pages(quantize_kv(rows.transpose(0, 1)[None], bits)))


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
