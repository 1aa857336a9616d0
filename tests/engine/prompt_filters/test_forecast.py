"""FLOPs and bytes: the published bounds, and what a model really computes."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lapidist.engine.prompt_filters.forecast import (
    filter_flops,
    filter_memory,
    full_memory,
    gain,
    kv_bytes,
    prefill_flops,
)
from lapidist.engine.prompt_filters.layer_pass import LayerPass
from lapidist.models.config import ModelConfig
from lapidist.models.load import load_decoder
from lapidist.workload.recipe import Recipe
from tests.checkpoints import write_random_llama

LLAMA = ModelConfig.of_shape("llama-3.1-8b")

# Times less arithmetic for Llama 3.1 8B by prompt length: 14 whole layers and 1024 tokens, 13 layers and the keys of
# the next, 14 layers and 2048 tokens, 14 layers and 4096 tokens. The reference code (arXiv 2409.17422) runs 14 layers.
TABLE = {
    8192: (1.83, 1.93, 1.51, 1.11),
    16384: (2.06, 2.20, 1.86, 1.55),
    32768: (2.19, 2.35, 2.09, 1.92),
    65536: (2.25, 2.42, 2.21, 2.14),
    131072: (2.27, 2.45, 2.26, 2.24),
}


def whole_layers(tokens: int, kept: int, layers: int) -> float:
    filtered = prefill_flops(LLAMA, tokens, layers) + prefill_flops(LLAMA, kept)
    return prefill_flops(LLAMA, tokens) / filtered


@pytest.mark.parametrize("tokens", TABLE)
def test_bounds_of_llama_3_1_8b(tokens: int) -> None:
    found = (
        whole_layers(tokens, 1024, 14),
        gain(LLAMA, tokens, 1024, 13),
        whole_layers(tokens, 2048, 14),
        whole_layers(tokens, 4096, 14),
    )
    assert found == pytest.approx(TABLE[tokens], abs=0.0101)


def test_arithmetic_of_a_full_prompt() -> None:
    """1.83 PFLOP in linear layers and 4.50 in causal attention."""
    assert prefill_flops(LLAMA, 131072) == pytest.approx(6.33e15, rel=2e-3)


def test_asymptote_is_the_share_of_layers() -> None:
    assert whole_layers(10**9, 1024, 14) == pytest.approx(32 / 14, rel=1e-3)


@pytest.mark.parametrize(("layers", "tokens", "layer"), [(2, 30, 1), (5, 64, 3), (4, 17, 0)])
def test_formulas_are_what_a_run_counts(tmp_path: Path, layers: int, tokens: int, layer: int) -> None:
    """Linear layers are counted exactly; attention as two products of all queries with all keys seen by one."""
    decoder = load_decoder(
        write_random_llama(tmp_path / "m", layers=layers), torch.float32, torch.device("cpu")
    )
    config = decoder.config
    ids = list(range(5, 5 + tokens))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        run = LayerPass(decoder, ids, tokens, 16)
        for index in range(layer):
            sum(run.run(index))
        sum(run.project_keys(layer))
        run.last_queries(layer, 1)
    width = config.num_heads * config.head_dim
    causal, square = layer * 2 * width * tokens * (tokens + 1), layer * 4 * width * tokens * tokens
    # A range of outputs is computed in whole panels of 64.
    key_width = config.num_kv_heads * config.head_dim
    products = 2 * tokens * key_width
    expected = filter_flops(config, tokens, layer) - causal + square - products
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-8b", "llama-3.2-1b"])
@pytest.mark.parametrize(("tokens", "kept", "generated"), [(4096, 256, 16), (131072, 1024, 1)])
def test_complexities_of_the_paper(name: str, tokens: int, kept: int, generated: int) -> None:
    """Theorem 3.3: bytes of keys and values in the prompt phase and while generating, per number of two bytes."""
    config = ModelConfig.of_shape(name)
    m, hd = config.num_layers, config.num_kv_heads * config.head_dim
    assert full_memory(config, tokens, 2).kv == 2 * m * hd * tokens * 2
    assert filter_memory(config, tokens, 2).kv == 2 * hd * tokens * 2
    assert kv_bytes(config, kept + generated, 2) == 2 * m * hd * (kept + generated) * 2
    kv = Recipe.named("bf16").kv
    assert kv_bytes(config, kept, 2) == m * kv.byte_count(2 * kept * config.num_kv_heads, config.head_dim)


def test_kv_of_1024_tokens_is_134_megabytes() -> None:
    assert kv_bytes(LLAMA, 1024, 2) == 134_217_728
