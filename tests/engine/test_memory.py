"""The KV cache that is planned is the one that is made, to the byte, whatever its numbers take."""

from pathlib import Path

import pytest
import torch

from lapidist.engine.memory import plan_kv_cache
from lapidist.engine.runner import Runner
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.models.config import ModelConfig
from lapidist.models.load import load_decoder

CPU = torch.device("cpu")


@pytest.fixture
def config(llama_directory: Path) -> ModelConfig:
    return load_decoder(llama_directory).config


def pages(config: ModelConfig, kv_cache_bytes: int, kv_bits: int) -> int:
    options = {"max_model_len": 16, "kv_cache_bytes": kv_cache_bytes, "page_size": 16, "max_num_seqs": 1}
    return plan_kv_cache(config, torch.bfloat16, CPU, kv_bits=kv_bits, **options).num_pages


@pytest.mark.parametrize("kv_bits", [16, 8, 4])
def test_what_is_planned_fits_and_no_page_more(llama_directory: Path, kv_bits: int) -> None:
    decoder = load_decoder(llama_directory, torch.bfloat16)
    decoder.kv_bits = kv_bits
    given = 1_000_000
    planned = pages(decoder.config, given, decoder.kv_bits)
    cache = Runner(decoder, planned, 16).cache
    total = sum(tensor.nbytes for tensor in cache.keys + cache.values)
    assert cache.bits == kv_bits
    assert total <= given < total * (planned + 1) // planned


def test_capacity_of_fewer_bits(config: ModelConfig) -> None:
    """A head of 16 channels takes 32 bytes, 19, or 11 for each token: 3 bytes are scale and zero."""
    bytes_of_page = PagedKVCache.bytes_per_page(
        config.num_layers, 16, config.num_kv_heads, config.head_dim, torch.bfloat16
    )
    assert config.head_dim == 16
    assert [pages(config, 60 * bytes_of_page, bits) for bits in (16, 8, 4)] == [60, 101, 174]


def test_a_cache_that_there_is_not_is_named(config: ModelConfig) -> None:
    with pytest.raises(ValueError, match="kv_bits must be 16, 8 or 4, got 3"):
        pages(config, 1 << 20, 3)
