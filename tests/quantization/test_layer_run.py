"""Layers over calibration sequences, against the decoder over the same tokens."""

from pathlib import Path

import pytest
import torch

from lapidist.kernels.linear import Linear
from lapidist.models.config import ModelConfig
from lapidist.models.load import load_decoder
from lapidist.models.weights import WeightFiles
from lapidist.quantization.attention_smoothing import search_attention_smoothing, smooth_attention
from lapidist.quantization.block import BlockWeights
from lapidist.quantization.block_files import BlockFiles, block_shape
from lapidist.quantization.layer_run import PROJECTIONS, LayerRun, make_layer, stacked_bias, stacked_weight
from lapidist.quantization.statistics import AttentionStatistics, InputStatistics
from tests.family_checkpoints import VARIANTS
from tests.paged_decoding import PagedDecoding
from tests.quantization.checkpoints import random_tokens, relative_error, write_family

LENGTH = 21


def blocks(directory: Path, config: ModelConfig) -> list[BlockWeights]:
    files, names = WeightFiles(directory), BlockFiles(config)
    return [names.read(files, index) for index in range(config.num_layers)]


def advance(
    run: LayerRun, config: ModelConfig, index: int, block: BlockWeights, hidden: torch.Tensor
) -> None:
    def project(name: str) -> Linear:
        return Linear(stacked_weight(block, name), stacked_bias(block, name))

    run.advance(make_layer(config, index, block, project), hidden, 16)


@pytest.mark.parametrize("name", VARIANTS)
def test_layer_after_layer_is_the_decoder(name: str, tmp_path: Path) -> None:
    seed = torch.seed() % 1000
    directory = write_family(tmp_path / "model", name, seed)
    decoder = load_decoder(directory)
    config = decoder.config
    sequences = [random_tokens(LENGTH) for _ in range(3)]
    embed = decoder._weights.embed(torch.tensor(sequences).flatten())
    hidden = (embed * config.embedding_scale).view(3, LENGTH, -1)
    run = LayerRun(config, 3, LENGTH, torch.float32)
    for index, block in enumerate(blocks(directory, config)):
        before = hidden.clone()
        inputs = {
            part: InputStatistics(stacked_weight(block, part).shape[1], False, 1) for part in PROJECTIONS
        }
        attention = AttentionStatistics(config.num_heads, config.num_kv_heads, config.head_dim)
        run.observe(index, block, hidden, inputs, attention)
        assert torch.equal(hidden, before), "observing changed what it observed"
        assert all((each.maxima > 0).any() for each in inputs.values())
        assert relative_error(run.attended(index, block, hidden, 16), inputs["o"].samples) < 1e-5
        advance(run, config, index, block, hidden)
    found = decoder.logits(decoder._weights.final_norm(hidden.flatten(0, 1))).view(3, LENGTH, -1)
    decoding = PagedDecoding(decoder, sequences, [LENGTH] * 3, scattered=True)
    for own, expected in zip(found, decoding.step([LENGTH] * 3), strict=True):
        assert relative_error(own, expected) < 1e-3, f"seed {seed}"


def test_the_search_smooths_better_than_nothing_and_than_one_half(tmp_path: Path) -> None:
    directory = write_family(tmp_path / "model", "qwen2", torch.seed() % 1000)
    config = ModelConfig.from_directory(directory)
    shape, block = block_shape(config), blocks(directory, config)[0]
    # Two key channels stand out, as they do in real models.
    block = block.with_(k=block.k.clone().index_fill_(0, torch.tensor([1, 3]), 3.0))
    hidden = torch.randn(2, LENGTH, config.hidden_size)
    run = LayerRun(config, 2, LENGTH, torch.float32)
    inputs = {part: InputStatistics(stacked_weight(block, part).shape[1], False, 1) for part in PROJECTIONS}
    attention = AttentionStatistics(config.num_heads, config.num_kv_heads, config.head_dim)
    run.observe(0, block, hidden, inputs, attention)
    exact = run.attended(0, block, hidden, 16)

    def error(other: BlockWeights) -> float:
        return (run.attended(0, other, hidden, 4) - exact).square().sum().item()

    found = search_attention_smoothing(block, shape, attention.key_maxima, attention.query_maxima, error)
    assert error(found) <= error(block)
    assert error(found) <= error(smooth_attention(block, shape, attention.key_maxima, 0.5)) * 1.0001
