"""Running a prompt layer by layer gives the numbers of running it chunk by chunk, to the last bit."""

from pathlib import Path

import pytest
import torch

from lapidist.engine.prompt_filters.layer_pass import LayerPass, Tail, Work
from lapidist.engine.prompt_filters.scores import pooled, raw_scores
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.models.batch import Batch
from lapidist.models.decoder import Decoder
from lapidist.models.load import load_decoder
from tests.checkpoints import write_random_llama
from tests.family_checkpoints import VARIANTS, build, save
from tests.quantized_checkpoints import CHANNELS, EIGHT_BITS, formats, quantize_at_random

PAGE_SIZE = 4


def run(work: Work) -> int:
    return sum(work)


def plain(decoder: Decoder, token_ids: list[int], chunk: int) -> tuple[torch.Tensor, PagedKVCache]:
    """Hidden states of a prefill in chunks of tokens, and its cache."""
    config, count = decoder.config, len(token_ids)
    pages = list(range(-(-count // PAGE_SIZE)))
    shape = (config.num_layers, len(pages), PAGE_SIZE, config.num_kv_heads, config.head_dim)
    cache = PagedKVCache(*shape, decoder.dtype, "cpu", decoder.kv_bits)
    hidden = []
    for start in range(0, count, chunk):
        span = range(start, min(start + chunk, count))
        layout = PagedLayout.build(span, [len(span)], [span.stop], [pages])
        ids = torch.tensor(token_ids[span.start : span.stop])
        batch = Batch(ids, torch.tensor(span), torch.full((len(span),), count), layout)
        hidden.append(decoder.forward(batch, cache))
    return torch.cat(hidden), cache


@pytest.fixture(
    scope="module", params=["llama", "llama-biases-tied", "llama-dynamic", "Qwen3", "Gemma2", "int8", "int4"]
)
def decoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    directory = tmp_path_factory.mktemp("checkpoint")
    name: str = request.param
    if name.startswith("int"):
        weights = EIGHT_BITS if name == "int8" else CHANNELS
        quantization = formats(weights, activation_bits=8, kv_bits=8 if name == "int8" else 4)
        quantize_at_random(write_random_llama(directory / "float"), directory / "quantized", quantization)
        directory = directory / "quantized"
    else:
        key = next(key for key in VARIANTS if key == name or VARIANTS[key].family == name)
        save(build(VARIANTS[key], seed=3), directory)
    return load_decoder(directory, torch.float32, torch.device("cpu"))


def prompt(decoder: Decoder, count: int = 45) -> list[int]:
    return torch.randint(3, 120, (count,), generator=torch.Generator().manual_seed(1)).tolist()


@torch.inference_mode()
@pytest.mark.parametrize("chunk", [7, 45])
def test_hidden_states_and_keys_are_those_of_a_prefill(decoder: Decoder, chunk: int) -> None:
    token_ids = prompt(decoder)
    hidden, cache = plain(decoder, token_ids, 10)
    layers = LayerPass(decoder, token_ids, chunk, PAGE_SIZE)
    for index in range(decoder.config.num_layers):
        assert run(layers.run(index)) == len(token_ids)
        for found, expected in (
            (layers.keys(), cache.numbers(index)[0]),
            (layers.values(), cache.numbers(index)[1]),
        ):
            assert torch.equal(found, expected.transpose(0, 1).flatten(1, 2)[:, : len(token_ids)])
    assert torch.equal(decoder.final_norm(layers.hidden), hidden)
    assert layers.layers_run == decoder.config.num_layers


@torch.inference_mode()
def test_early_stop_scores_are_those_of_the_whole_layer(decoder: Decoder) -> None:
    """The keys' projection alone, and the last token's query alone, against a run of the whole layer."""
    token_ids = prompt(decoder)
    for layer in range(decoder.config.num_layers):
        early = LayerPass(decoder, token_ids, 16, PAGE_SIZE)
        for index in range(layer):
            run(early.run(index))
        run(early.project_keys(layer))
        queries = early.last_queries(layer, 3)
        assert early.layers_run == layer

        whole = LayerPass(decoder, token_ids, 16, PAGE_SIZE)
        tail = Tail(len(token_ids), 3)
        for index in range(layer + 1):
            run(whole.run(index, tail.observe if index == layer else None))
        assert torch.equal(queries, tail.queries())
        assert torch.equal(early.keys(), whole.keys())
        assert torch.equal(
            pooled(raw_scores(queries, early.keys()), 5), pooled(raw_scores(tail.queries(), whole.keys()), 5)
        )


@torch.inference_mode()
def test_narrowed_tokens_stay_at_their_positions(llama_directory: Path) -> None:
    """Of the tokens that go on, each layer computes what it would in a prompt whose other tokens are masked."""
    decoder = load_decoder(llama_directory, torch.float32, torch.device("cpu"))
    token_ids = prompt(decoder)
    layers = LayerPass(decoder, token_ids, 16, PAGE_SIZE)
    run(layers.run(0))
    places = torch.tensor([0, 3, 4, 20, 44])
    before = layers.hidden.clone()
    layers.narrow(places)
    assert torch.equal(layers.hidden, before[places])
    run(layers.run(1))
    positions = places
    cos_sin = decoder.cos_sin(positions, torch.full((5,), 45))
    keys = decoder.keys(1, before[places], cos_sin)
    assert torch.equal(layers.keys(), keys.transpose(0, 1))


def test_scratch_is_one_layer_and_the_hidden_states(llama_directory: Path) -> None:
    decoder = load_decoder(llama_directory, torch.float32, torch.device("cpu"))
    config, tokens = decoder.config, 45
    layers = LayerPass(decoder, prompt(decoder), 16, PAGE_SIZE)
    kv = 2 * config.num_kv_heads * config.head_dim
    assert layers.scratch_bytes == 4 * tokens * (config.hidden_size + kv + 2 * config.rope.rotary_dim)
