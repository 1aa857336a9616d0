"""Keys and values as codes of 4 or 8 bits, each token and head with a scale and a zero of its own: KV4 of QServe (arXiv
2405.04532).

A channel is ``(code - zero) * scale``. Scale and zero are float16; the zero is a real number in units of codes, so that
the codes reach exactly from the row's least channel to its largest.

In a page of the cache the codes of a head's tokens come first, then their scales, then their zeros. A row of codes is
a row of little-endian 16-bit words, in each of which the channels lie a part of the row apart: with 4 bits nibble ``k``
of word ``j`` is channel ``k * head_dim / 4 + j``, with 8 bits byte ``k`` is channel ``k * head_dim / 2 + j``. A kernel
gets channels that follow one another by one shift and one mask.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

KV_BITS = (16, 8, 4)
"""What the cache can be told; 16 stands for keys and values as they are, in the cache's dtype."""

_MOST = torch.finfo(torch.float16).max
# A float16 has 11 bits: where steps were finer than this part of the row's largest magnitude, the zero would be rounded
# by more than half a step.
_FINEST = 2.0**-11


@dataclass(frozen=True)
class QuantizedKV:
    """Rows of keys or values.

    Attributes
    ----------
    codes : uint8 ``[..., head_dim]``.
    scales, zeros : float16 ``[...]``.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor

    def dequantize(self) -> Tensor:
        """float32 ``[..., head_dim]``."""
        return (self.codes.float() - self.zeros.float()[..., None]) * self.scales.float()[..., None]


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
    """Quantize rows ``[..., head_dim]`` of float32, bfloat16 or float16, to nearest.

    The error of a channel is at most half a step, which is the larger of the row's range over ``2^bits - 1`` and 2^-11
    of its largest magnitude, rounded up to a float16. A row of equal channels that are float16 numbers is exact. Beyond
    what float16 can say (a range of ``(2^bits - 1) * 65504``, equal channels of 65504; steps below 2^-24) values
    saturate, or vanish. A row in which a channel is not finite becomes NaN altogether.
    """
    x = x.float()
    levels = (1 << bits) - 1
    least, most = x.aminmax(dim=-1)
    least, most = least + 0.0, most + 0.0  # one zero of the two
    magnitude = torch.maximum(-least, most)
    scales = _rounded_up(torch.maximum((most - least) / levels, magnitude * _FINEST).clamp(max=_MOST))
    zeros = ((0.0 - least) / scales.float()).clamp(-_MOST, _MOST).half()
    is_constant = least == most
    scales = torch.where(is_constant, most.clamp(-_MOST, _MOST).half(), scales)
    zeros = torch.where(is_constant, -1.0, zeros)
    is_finite = x.isfinite().all(-1)
    scales, zeros = (torch.where(is_finite, part, torch.nan) for part in (scales, zeros))
    codes = (x / scales.float()[..., None] + zeros.float()[..., None]).clamp(0, levels).round()
    return QuantizedKV(codes.nan_to_num(0).to(torch.uint8), scales, zeros)


def _rounded_up(x: Tensor) -> Tensor:
    """To float16, from 0 to 65504."""
    nearest = x.half()
    return (nearest.view(torch.int16) + (nearest.float() < x)).view(torch.float16)


def page_bytes(page_size: int, head_dim: int, bits: int) -> int:
    """Of a page's keys, or values, of one head: the codes, and 4 bytes for each token's scale and zero."""
    return page_size * (head_dim * bits // 8 + 4)


def tokens_of_page(bytes_of_page: int, head_dim: int, bits: int) -> int:
    """The inverse of ``page_bytes``."""
    return bytes_of_page // (head_dim * bits // 8 + 4)


def pack_pages(rows: QuantizedKV, bits: int) -> Tensor:
    """Rows ``[..., page_size, head_dim]`` as pages: uint8 ``[..., page_bytes]``."""
    parts = 16 // bits
    codes = rows.codes.int().unflatten(-1, (parts, -1))
    shifts = torch.arange(0, 16, bits, dtype=torch.int32)[:, None]
    words = (codes << shifts).sum(-2).short()
    tensors = (words.contiguous(), rows.scales.contiguous(), rows.zeros.contiguous())
    return torch.cat([tensor.view(torch.uint8).flatten(rows.scales.dim() - 1) for tensor in tensors], -1)


def unpack_pages(pages: Tensor, head_dim: int, bits: int) -> QuantizedKV:
    """The inverse of ``pack_pages``."""
    page_size = tokens_of_page(pages.shape[-1], head_dim, bits)
    row_bytes = head_dim * bits // 8
    codes, scales, zeros = pages.split([page_size * row_bytes, 2 * page_size, 2 * page_size], -1)
    words = codes.contiguous().view(torch.int16).int().unflatten(-1, (page_size, 1, -1))
    shifts = torch.arange(0, 16, bits, dtype=torch.int32)[:, None]
    unpacked = (words >> shifts & (1 << bits) - 1).flatten(-2).to(torch.uint8)
    return QuantizedKV(unpacked, *(part.contiguous().view(torch.float16) for part in (scales, zeros)))
