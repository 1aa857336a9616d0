"""How many KV pages the engine gets, and how long a sequence they allow."""

from dataclasses import dataclass

import psutil
import torch

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.models.config import ModelConfig

# Share of free memory that the KV cache takes when the user names no size.
_DEFAULT_SHARE = 0.25


@dataclass(frozen=True)
class KVCachePlan:
    """
    Attributes
    ----------
    max_model_len : tokens of a sequence in the cache at most.
    max_context : positions that a sequence may reach; more than ``max_model_len`` only where the cache, and not the
        user, bounds that.
    """

    num_pages: int
    max_model_len: int
    max_context: int


def plan_kv_cache(
    config: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    *,
    max_model_len: int | None,
    kv_cache_bytes: int | None,
    page_size: int,
    max_num_seqs: int,
    kv_bits: int = 16,
) -> KVCachePlan:
    """Size the KV cache in pages.

    Without ``kv_cache_bytes`` it holds ``max_num_seqs`` sequences of full length, but takes at most a quarter of the
    device's free memory. Without ``max_model_len`` a sequence may use the model's context as far as the cache holds it.

    Raises
    ------
    ValueError : the cache does not hold one page, or not one sequence of ``max_model_len`` tokens, or there is none of
        ``kv_bits``.
    """
    wanted = max_model_len or config.max_position_embeddings
    bytes_per_page = PagedKVCache.bytes_per_page(
        config.num_layers, page_size, config.num_kv_heads, config.head_dim, dtype, kv_bits
    )
    pages_per_sequence = -(-wanted // page_size)
    if kv_cache_bytes is None:
        affordable = int(free_bytes(device) * _DEFAULT_SHARE) // bytes_per_page
        num_pages = min(pages_per_sequence * max_num_seqs, affordable)
    else:
        num_pages = kv_cache_bytes // bytes_per_page
    if num_pages < 1:
        raise ValueError(
            f"the KV cache does not hold one page of {page_size} tokens, which takes {bytes_per_page} bytes"
        )
    if num_pages >= pages_per_sequence:
        return KVCachePlan(num_pages, wanted, wanted)
    if max_model_len is not None:
        raise ValueError(
            f"max_model_len {max_model_len} needs {pages_per_sequence * bytes_per_page} bytes of KV cache and "
            f"{num_pages * bytes_per_page} are available: lower max_model_len or raise kv_cache_bytes"
        )
    return KVCachePlan(num_pages, num_pages * page_size, wanted)


def free_bytes(device: torch.device) -> int:
    """Memory of the device that nobody uses now, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)
