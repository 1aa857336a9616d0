"""The paged KV cache: keys and values of every layer, in pages of a fixed number of tokens.

Within a page the tokens of one KV head lie together, so that a head's keys are read in long runs.
"""

import torch
from torch import Tensor

from lapidist.kernels.cpu.kv_write import kv_write
from lapidist.kernels.cpu.library import in_huge_pages


class PagedKVCache:
    """Keys and values of every layer. Which page belongs to whom is the caller's business.

    Attributes
    ----------
    keys, values : one tensor per layer, ``[num_pages, num_kv_heads, page_size, head_dim]``.
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
        self.num_pages = num_pages
        self.page_size = page_size
        shape = (num_pages, num_kv_heads, page_size, head_dim)
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
            kv_write(k, v, keys, values, slots)
            return
        page, slot = slots // self.page_size, slots % self.page_size
        keys[page, :, slot] = k
        values[page, :, slot] = v

    @staticmethod
    def bytes_per_page(
        num_layers: int, page_size: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> int:
        """Bytes that one page takes over all layers, keys and values."""
        return 2 * num_layers * page_size * num_kv_heads * head_dim * dtype.itemsize


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Zeros come from the operating system unwritten; memory is taken when a page is first used."""
    zeros = torch.zeros(shape, dtype=dtype, device=device)
    return in_huge_pages(zeros) if zeros.device.type == "cpu" else zeros
