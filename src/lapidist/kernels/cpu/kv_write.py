"""New keys and values into the pages of the cache, in the native library."""

import torch
from torch import Tensor

from lapidist.kernels.cpu.library import TYPES, native, with_whole_rows
from lapidist.kernels.kv_quantization import tokens_of_page


def kv_write(
    key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor, kv_bits: int = 16
) -> None:
    """Copy, or quantize, ``key`` and ``value`` ``[tokens, kv_heads, head_dim]`` to ``slots`` of one layer's pages.

    Parameters
    ----------
    keys, values : of a ``PagedKVCache`` of ``kv_bits``.
    slots : int64 ``[tokens]``, page times page size plus offset.

    Raises
    ------
    TypeError : the dtypes of keys and values differ, or are not that of a cache of 16 bits.
    """
    if key.dtype != value.dtype or (kv_bits == 16 and key.dtype != keys.dtype):
        raise TypeError(
            f"the cache is {keys.dtype}; keys are {key.dtype} and values {value.dtype}: make them one dtype"
        )
    key, value = with_whole_rows(key), with_whole_rows(value)
    _, kv_heads, head_dim = key.shape
    native().kv_write(
        TYPES[key.dtype],
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
        keys.shape[2] if kv_bits == 16 else tokens_of_page(keys.shape[2], head_dim, kv_bits),
        torch.get_num_threads(),
        kv_bits,
    )
