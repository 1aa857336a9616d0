"""New keys and values into the pages of the cache, in the native library."""

import torch
from torch import Tensor

from lapidist.kernels.cpu.library import native, with_whole_rows


def kv_write(key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Copy ``key`` and ``value`` ``[tokens, kv_heads, head_dim]`` to ``slots`` of one layer's pages.

    Parameters
    ----------
    keys, values : ``[num_pages, kv_heads, page_size, head_dim]``.
    slots : int64 ``[tokens]``, page times page size plus offset.

    Raises
    ------
    TypeError : the dtype is not that of the cache.
    """
    if not key.dtype == value.dtype == keys.dtype:
        raise TypeError(
            f"the cache is {keys.dtype}; keys are {key.dtype} and values {value.dtype}: make them one dtype"
        )
    key, value = with_whole_rows(key), with_whole_rows(value)
    _, kv_heads, page_size, head_dim = keys.shape
    native().kv_write(
        keys.itemsize,
        key.data_ptr(),
        value.data_ptr(),
        key.stride(0),
        value.stride(0),
        keys.data_ptr(),
        values.data_ptr(),
        slots.data_ptr(),
        len(slots),
        kv_heads,
        head_dim,
        page_size,
        torch.get_num_threads(),
    )
