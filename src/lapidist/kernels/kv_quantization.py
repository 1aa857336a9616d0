"""Keys and values as codes of 4 or 8 bits, each token and head with a scale and a zero of its own: KV4 of QServe (arXiv
2405.04532), with a zero of one byte.

A channel is ``(code - zero / 2^(8 - bits)) * scale``. The scale is float16; the zero's byte counts codes, of 4 bits
their sixteenths. The codes reach from the row's least channel to its largest, zero included.

In a page of the cache a row is a head of a token, and the tokens of a head follow one another. The codes of all rows
come first, then their scales, then their zeros. A row of codes is a row of little-endian 16-bit words, in each of which
the channels lie a part of the row apart: with 4 bits nibble ``k`` of word ``j`` is channel ``k * head_dim / 4 + j``,
with 8 bits byte ``k`` is channel ``k * head_dim / 2 + j``. A kernel gets channels that follow one another by one shift
and one mask.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

KV_BITS = (16, 8, 4)
"""What the cache can be told; 16 stands for keys and values as they are, in the cache's dtype."""

_MOST = torch.finfo(torch.float16).max
_LEAST = 2.0**-24
_SUMS = 16  # of squares, which are added up in an order that suits vectors of 16, 8 and 4 lanes
_PARAMETER_BYTES = 3


@dataclass(frozen=True)
class QuantizedKV:
    """Rows of keys or values.

    Attributes
    ----------
    codes : uint8 ``[..., head_dim]``.
    scales : float16 ``[...]``.
    zeros : uint8 ``[...]``, in ``2^(bits - 8)`` of a code.
    bits : of a code, 4 or 8.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    bits: int

    def dequantize(self) -> Tensor:
        """float32 ``[..., head_dim]``."""
        zeros = self.zeros.float() / (1 << 8 - self.bits)
        return (self.codes.float() - zeros[..., None]) * self.scales.float()[..., None]


def check_kv_bits(bits: int, head_dim: int) -> None:
    """
    Raises
    ------
    ValueError : there is no such cache.
    """
    if bits not in KV_BITS:
        raise ValueError(f"kv_bits must be {', '.join(map(str, KV_BITS[:-1]))} or {KV_BITS[-1]}, got {bits}")
    if bits != 16 and head_dim % 8:
        raise ValueError(
            f"a KV cache of {bits} bits needs heads of a multiple of 8 channels, these have {head_dim}: use kv_bits=16"
        )


def quantize_kv(x: Tensor, bits: int) -> QuantizedKV:
    """Quantize rows ``[..., head_dim]`` of float32, bfloat16 or float16.

    The codes reach from end to end of the row, zero included. With 4 bits either end, or both, may also give up half a
    step, which makes the others finer: of these four grids a row gets the one with the least sum of squared errors.

    The error of a channel is at most 0.54 steps of 4 bits and 0.501 of 8, a step being that range over ``2^bits - 1``,
    rounded up to a float16. A row of equal channels that are float16 numbers is exact. Beyond what float16 can say (a
    range of ``(2^bits - 1) * 65504``, steps below 2^-24) values saturate, or vanish. A row in which a channel is not
    finite becomes NaN altogether.
    """
    x = x.float()
    least, most = x.aminmax(dim=-1)
    least, most = least + 0.0, most + 0.0  # one zero of the two
    scales, zeros = _best_grid(x, least.clamp(max=0.0), most.clamp(min=0.0), bits)
    # Every code of a row of equal channels is one.
    is_constant = least == most
    scales = torch.where(is_constant, most.clamp(-_MOST, _MOST).half(), scales)
    is_finite = x.isfinite().all(-1)
    scales = torch.where(is_finite, scales, torch.nan)
    zeros = torch.where(is_constant | ~is_finite, 0.0, zeros)
    _, codes = _codes(x, scales, zeros, bits)
    return QuantizedKV(codes.nan_to_num(0).to(torch.uint8), scales, zeros.to(torch.uint8), bits)


def _best_grid(x: Tensor, bottom: Tensor, top: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scales and zeros of codes from bottom to top, give or take half a step."""
    scales, zeros = _grid(bottom, top, bits)
    if bits == 8:
        return scales, zeros
    # Half a step that an end gives up costs its own channel no more than rounding may.
    half_step = 0.5 * ((top - bottom) / ((1 << bits) - 1)).clamp(max=_MOST)
    raised, lowered = (bottom + half_step).clamp(max=0.0), (top - half_step).clamp(min=0.0)
    least = _error(x, scales, zeros, bits)
    for low, high in ((bottom, lowered), (raised, top), (raised, lowered)):
        other_scales, other_zeros = _grid(low, high, bits)
        error = _error(x, other_scales, other_zeros, bits)
        is_better = error < least
        least = torch.where(is_better, error, least)
        scales = torch.where(is_better, other_scales, scales)
        zeros = torch.where(is_better, other_zeros, zeros)
    return scales, zeros


def _grid(bottom: Tensor, top: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scales, and zeros as integers in float32, of codes from end to end."""
    wanted = ((top - bottom) / ((1 << bits) - 1)).clamp(_LEAST, _MOST)
    nearest = wanted.half()
    scales = (nearest.view(torch.int16) + (nearest.float() < wanted)).view(torch.float16)
    return scales, (-bottom * (1.0 / scales.float()) * (1 << 8 - bits)).clamp(max=255.0).round()


def _codes(x: Tensor, scales: Tensor, zeros: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Channels in codes, and the codes nearest to them."""
    exact = x * (1.0 / scales.float())[..., None] + (zeros / (1 << 8 - bits))[..., None]
    return exact, exact.clamp(0, (1 << bits) - 1).round()


def _error(x: Tensor, scales: Tensor, zeros: Tensor, bits: int) -> Tensor:
    """Sums of squares, in the native library's order to the last bit."""
    exact, codes = _codes(x, scales, zeros, bits)
    squares = pad((exact - codes).square(), (0, -x.shape[-1] % _SUMS)).unflatten(-1, (-1, _SUMS))
    sums = squares[..., 0, :]
    for block in squares.unbind(-2)[1:]:
        sums = sums + block
    while sums.shape[-1] > 1:
        first, second = sums.chunk(2, -1)
        sums = first + second
    return scales.float() * scales.float() * sums[..., 0]


def page_bytes(page_size: int, head_dim: int, bits: int) -> int:
    """Of a page's keys, or values, a head's share: the codes, and 3 bytes for each token's scale and zero."""
    return page_size * (head_dim * bits // 8 + _PARAMETER_BYTES)


def tokens_of_page(bytes_of_page: int, head_dim: int, bits: int) -> int:
    """The inverse of ``page_bytes``."""
    return bytes_of_page // (head_dim * bits // 8 + _PARAMETER_BYTES)


def pack_pages(rows: QuantizedKV) -> Tensor:
    """Rows ``[..., kv_heads, page_size, head_dim]`` as pages: uint8 ``[..., kv_heads, page_bytes]``.

    A page is one run of bytes: its heads do not lie apart, the last dimension is a head's share of it.
    """
    *pages, heads, _ = rows.scales.shape
    codes = rows.codes.int().unflatten(-1, (16 // rows.bits, -1))
    shifts = torch.arange(0, 16, rows.bits, dtype=torch.int32)[:, None]
    words = (codes << shifts).sum(-2).short()
    tensors = (words.contiguous(), rows.scales.contiguous(), rows.zeros.contiguous())
    packed = torch.cat([tensor.view(torch.uint8).reshape(*pages, -1) for tensor in tensors], -1)
    return packed.unflatten(-1, (heads, -1))


def unpack_pages(pages: Tensor, head_dim: int, bits: int) -> QuantizedKV:
    """The inverse of ``pack_pages``."""
    heads, page_size = pages.shape[-2], tokens_of_page(pages.shape[-1], head_dim, bits)
    rows, row_bytes = heads * page_size, head_dim * bits // 8
    codes, scales, zeros = pages.flatten(-2).split([rows * row_bytes, 2 * rows, rows], -1)
    words = _copied(codes).view(torch.int16).int().unflatten(-1, (heads, page_size, 1, -1))
    shifts = torch.arange(0, 16, bits, dtype=torch.int32)[:, None]
    unpacked = (words >> shifts & (1 << bits) - 1).flatten(-2).to(torch.uint8)
    shape = (*pages.shape[:-1], page_size)
    return QuantizedKV(
        unpacked, _copied(scales).view(torch.float16).view(shape), _copied(zeros).view(shape), bits
    )


def _copied(part: Tensor) -> Tensor:
    """Where its memory starts at an even address: a page may not."""
    return part.clone(memory_format=torch.contiguous_format)
