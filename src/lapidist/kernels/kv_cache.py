"""The paged KV cache: keys and values of every layer, in pages of a fixed number of tokens.

Within a page the tokens of one KV head lie together, so that a head's keys are read in long runs. With 8 or 4 bits they
are stored as codes, see ``lapidist.kernels.kv_quantization``, and attention reads nothing else: what a token sees does
not depend on when the tokens before it were computed.
"""

import torch
from torch import Tensor

from lapidist.kernels.cpu.kv_write import kv_write
from lapidist.kernels.cpu.library import in_huge_pages
from lapidist.kernels.kv_quantization import check_kv_bits, page_bytes, unpack_pages


class PagedKVCache:
    """Keys and values of every layer. Which page belongs to whom is the caller's business.

    Parameters
    ----------
    dtype : of the keys and values that are written.
    bits : of a stored number; 16 stores them as they are, in ``dtype``.

    Attributes
    ----------
    keys, values : one tensor per layer, ``[num_pages, num_kv_heads, page_size, head_dim]``; with 8 or 4 bits uint8
        ``[num_pages, num_kv_heads, page_bytes]``, see ``pack_pages``.

    Raises
    ------
    ValueError : ``bits`` are none of 16, 8 and 4, do not suit ``head_dim``, or ask for codes on a GPU.
    """

    def __init__(
        self,
        num_layers: int,
        num_pages: int,
        page_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        bits: int = 16,
    ) -> None:
        check_kv_bits(bits, head_dim)
        if bits != 16 and torch.device(device).type != "cpu":
            raise ValueError(
                f"a KV cache of {bits} bits runs on a CPU, not on {device}: use kv_bits=16 there"
            )
        self.num_pages = num_pages
        self.page_size = page_size
        self.head_dim = head_dim
        self.bits = bits
        shape: tuple[int, ...] = (num_pages, num_kv_heads, page_size, head_dim)
        if bits != 16:
            shape, dtype = (num_pages, num_kv_heads, page_bytes(page_size, head_dim, bits)), torch.uint8
        self.keys = [_zeros(shape, dtype, device) for _ in range(num_layers)]
        self.values = [_zeros(shape, dtype, device) for _ in range(num_layers)]

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store the keys and values of new tokens.

        Parameters
        ----------
        slots : int64 ``[tokens]``, page times page size plus offset.
        k, v : ``[tokens, num_kv_heads, head_dim]``.
        """
        keys, values = self.keys[layer], self.values[layer]
        if keys.device.type == "cpu":
            kv_write(k, v, keys, values, slots, self.bits)
            return
        page, slot = slots // self.page_size, slots % self.page_size
        keys[page, :, slot] = k
        values[page, :, slot] = v

    def numbers(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer as ``[num_pages, num_kv_heads, page_size, head_dim]``, for observers and tests:
        the cache itself, or a copy in float32 of what its codes stand for.
        """
        pages = self.keys[layer], self.values[layer]
        if self.bits == 16:
            return pages
        keys, values = (unpack_pages(each, self.head_dim, self.bits).dequantize() for each in pages)
        return keys, values

    @staticmethod
    def bytes_per_page(
        num_layers: int,
        page_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        bits: int = 16,
    ) -> int:
        """Bytes that one page takes over all layers, keys and values.

        Raises
        ------
        ValueError : as of the class.
        """
        check_kv_bits(bits, head_dim)
        plain = page_size * head_dim * dtype.itemsize
        return (
            2 * num_layers * num_kv_heads * (plain if bits == 16 else page_bytes(page_size, head_dim, bits))
        )


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Zeros come from the operating system unwritten; memory is taken when a page is first used."""
    zeros = torch.zeros(shape, dtype=dtype, device=device)
    return in_huge_pages(zeros) if zeros.device.type == "cpu" else zeros
