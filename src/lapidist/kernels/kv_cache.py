"""The paged KV cache: keys and values of every layer, in pages of a fixed number of tokens."""

import torch
from torch import Tensor


class PagedKVCache:
    """Keys and values of every layer. Which page belongs to whom is the caller's business.

    Attributes
    ----------
    keys, values : one tensor per layer, ``[num_pages, page_size, num_kv_heads, head_dim]``.
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
    ) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        shape = (num_pages, page_size, num_kv_heads, head_dim)
        # Zeros come from the operating system unwritten; a page takes memory when it is first used.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(num_layers)]

    def write(self, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> None:
        """Store the keys and values of new tokens.

        Parameters
        ----------
        slots : int64 ``[tokens]``, page times page size plus offset.
        k, v : ``[tokens, num_kv_heads, head_dim]``.
        """
        self.keys[layer].flatten(0, 1).index_copy_(0, slots, k)
        self.values[layer].flatten(0, 1).index_copy_(0, slots, v)

    @staticmethod
    def bytes_per_page(
        num_layers: int, page_size: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype
    ) -> int:
        """Bytes that one page takes over all layers, keys and values."""
        return 2 * num_layers * page_size * num_kv_heads * head_dim * dtype.itemsize
