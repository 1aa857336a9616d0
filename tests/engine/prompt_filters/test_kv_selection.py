"""Filters that keep keys and values per head, against the published methods on ``transformers``."""

import itertools
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from lapidist import LLM, SamplingParams
from lapidist.engine.prompt_filters import FilterReport
from lapidist.engine.prompt_filters.kv_selection import _window_choice
from tests.checkpoints import write_random_llama
from tests.engine.prompt_filters.reference import (
    attentions,
    decode_with_choice,
    fastkv_logits,
    h2o_choice,
    snapkv_choice,
)

PARAMS = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
TOKENS = 90


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_llama(tmp_path_factory.mktemp("llama"), layers=4, seed=2)


@pytest.fixture(scope="module")
def llm(directory: Path) -> LLM:
    return LLM(directory, max_num_batched_tokens=32, max_num_seqs=8, page_size=4)


@pytest.fixture(scope="module")
def model(directory: Path) -> LlamaForCausalLM:
    found = LlamaForCausalLM.from_pretrained(directory, attn_implementation="eager")
    return found.eval().requires_grad_(False)


def prompt(seed: int) -> list[int]:
    return torch.randint(3, 300, (TOKENS,), generator=torch.Generator().manual_seed(seed)).tolist()


def run(llm: LLM, token_ids: list[int], **options: object) -> tuple[list[int], FilterReport]:
    [output] = llm.generate({"prompt_token_ids": token_ids}, PARAMS, prompt_filter=options)
    assert output.prompt_filter is not None
    return output.outputs[0].token_ids, output.prompt_filter


@pytest.mark.parametrize("seed", range(3))
def test_snapkv(llm: LLM, model: LlamaForCausalLM, seed: int) -> None:
    choices = [snapkv_choice(weights, 24, 8, 5) for weights in attentions(model, prompt(seed))]
    expected = decode_with_choice(model, prompt(seed), choices, 10)
    tokens, report = run(llm, prompt(seed), method="snapkv", keep=24, window=8, explain=True)
    assert tokens == expected
    assert report.kept_tokens == 24
    shares = torch.zeros(TOKENS).index_add_(
        0, torch.stack(choices).flatten(), torch.ones(4 * 2 * 24) / (4 * 2)
    )
    assert report.scores == pytest.approx(shares.tolist())


def test_snapkv_differs_from_the_plain_model(llm: LLM) -> None:
    plain = [llm.generate({"prompt_token_ids": prompt(s)}, PARAMS)[0].outputs[0].token_ids for s in range(3)]
    filtered = [run(llm, prompt(s), method="snapkv", keep=24, window=8)[0] for s in range(3)]
    assert plain != filtered
    # The first token follows from the whole prompt.
    assert [tokens[0] for tokens in plain] == [tokens[0] for tokens in filtered]


@pytest.mark.parametrize("seed", range(3))
def test_h2o(llm: LLM, model: LlamaForCausalLM, seed: int) -> None:
    choices = [h2o_choice(weights, 24, 8) for weights in attentions(model, prompt(seed))]
    tokens, _ = run(llm, prompt(seed), method="h2o", keep=24, recent=8)
    assert tokens == decode_with_choice(model, prompt(seed), choices, 10)


def test_streamingllm(llm: LLM, model: LlamaForCausalLM) -> None:
    places = torch.tensor([*range(4), *range(TOKENS - 20, TOKENS)])
    choices = [places.expand(2, -1)] * 4
    tokens, report = run(llm, prompt(4), method="streamingllm", keep=24, explain=True)
    assert tokens == decode_with_choice(model, prompt(4), choices, 10)
    assert [(span.start, span.end) for span in report.spans or []] == [(0, 4), (TOKENS - 20, TOKENS)]


def test_fastkv_up_to_the_last_layer_is_snapkv(llm: LLM) -> None:
    """Nothing is dropped on the way, so only window and pool differ from SnapKV's defaults."""
    fastkv, _ = run(llm, prompt(5), method="fastkv", keep=24, layer=3)
    snapkv, _ = run(llm, prompt(5), method="snapkv", keep=24, window=8, pool=7)
    assert fastkv == snapkv


def test_fastkv_deeper_layers_see_the_chosen_tokens(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = llm.engine.decoder
    lengths: dict[int, int] = {}
    original = decoder.run_layer

    def counted(index: int, hidden: torch.Tensor, *rest: object) -> None:
        if len(hidden) > 1:  # not a decode
            lengths[index] = lengths.get(index, 0) + len(hidden)
        original(index, hidden, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(decoder, "run_layer", counted)
    _, report = run(llm, prompt(6), method="fastkv", keep=10, layer=1, propagate=0.4, explain=True)
    assert lengths == {0: TOKENS, 1: TOKENS, 2: 36, 3: 36}
    assert report.kept_tokens == 10
    assert report.layer == 1
    assert report.scores is not None
    assert all(share == 1 for share in report.scores[-8:])


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_fastkv_against_the_published_method(llm: LLM, model: LlamaForCausalLM, layer: int) -> None:
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=-1)
    options = {"method": "fastkv", "keep": 10, "layer": layer, "propagate": 0.4, "window": 8, "pool": 7}
    [output] = llm.generate({"prompt_token_ids": prompt(6)}, params, prompt_filter=options)
    expected = fastkv_logits(model, prompt(6), layer, 36, 8, 7).log_softmax(-1)
    [found] = output.outputs[0].logprobs or []
    assert [found[token].logprob for token in range(len(expected))] == pytest.approx(
        expected.tolist(), abs=2e-3
    )


def test_fastkv_without_dropping_is_the_plain_prefill(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=5)
    options = {"method": "fastkv", "keep": 10, "layer": 1, "propagate": 1.0}
    plain, filtered = (
        llm.generate({"prompt_token_ids": prompt(7)}, params, prompt_filter=given)[0]
        for given in (None, options)
    )
    assert filtered.outputs == plain.outputs  # to the last bit


@pytest.mark.parametrize(
    "options",
    [
        {"method": "snapkv"},
        {"method": "h2o"},
        {"method": "streamingllm"},
        {"method": "fastkv", "propagate": 1.0},
    ],
)
@pytest.mark.parametrize("keep", [1, 3, 31, 32, 33, TOKENS - 1, TOKENS])
def test_any_budget(llm: LLM, options: dict[str, object], keep: int) -> None:
    tokens, report = run(llm, prompt(8), keep=keep, **options)
    assert len(tokens) == 10
    assert report.kept_tokens == keep


def test_other_completions_decode_from_the_same_keys(llm: LLM) -> None:
    params = SamplingParams(n=3, seed=1, max_tokens=8, ignore_eos=True)
    options = {"method": "snapkv", "keep": 20, "window": 8}
    [output] = llm.generate({"prompt_token_ids": prompt(9)}, params, prompt_filter=options)
    texts = [completion.token_ids for completion in output.outputs]
    again = [
        llm.generate(
            {"prompt_token_ids": prompt(9)},
            SamplingParams(seed=1 + index, max_tokens=8, ignore_eos=True),
            prompt_filter=options,
        )[0]
        .outputs[0]
        .token_ids
        for index in range(3)
    ]
    assert texts == again


def test_window_choice_keeps_window_and_order() -> None:
    scores = torch.rand(3, 40)
    for kept, window in itertools.product((1, 5, 20, 40), (1, 8, 50)):
        choice = _window_choice(scores, kept, window, 5)
        assert choice.shape == (3, kept)
        for row in choice.tolist():
            assert row == sorted(set(row))
            assert row[-min(kept, window) :] == list(range(40 - min(kept, window), 40))
