"""GemFilter in the engine against the published method on ``transformers``."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from lapidist import LLM, SamplingParams
from lapidist.engine.prompt_filters import FilterReport
from tests.checkpoints import write_random_llama
from tests.engine.prompt_filters.reference import gemfilter_scores, greedy, queries_and_keys

LAYERS = 16
PARAMS = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_llama(tmp_path_factory.mktemp("deep"), layers=LAYERS)


@pytest.fixture(scope="module")
def llm(directory: Path) -> LLM:
    return LLM(directory, max_num_batched_tokens=32, max_num_seqs=8, page_size=4)


@pytest.fixture(scope="module")
def model(directory: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(directory).eval().requires_grad_(False)


def prompt(seed: int, count: int = 100) -> list[int]:
    return torch.randint(3, 300, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def run(llm: LLM, token_ids: list[int], **options: object) -> tuple[list[int], FilterReport]:
    [output] = llm.generate(
        {"prompt_token_ids": token_ids}, PARAMS, prompt_filter={"method": "gemfilter", **options}
    )
    assert output.prompt_filter is not None
    assert output.prompt_token_ids == token_ids
    return output.outputs[0].token_ids, output.prompt_filter


def kept(report: FilterReport) -> list[int]:
    assert report.kept is not None
    return report.kept


@pytest.mark.parametrize("layer", [0, 5, 12, 13, 14, 15])
def test_the_layer_counts_from_zero(llm: LLM, model: LlamaForCausalLM, layer: int) -> None:
    token_ids = prompt(0)
    scores = gemfilter_scores(model, token_ids, layer)
    _, report = run(llm, token_ids, layer=layer, keep=20, explain=True)
    assert kept(report) == sorted(scores.topk(20).indices.tolist())
    assert report.scores == pytest.approx(scores.tolist(), rel=1e-3, abs=1e-2)
    assert report.layer == layer


def test_neighbouring_layers_choose_differently(llm: LLM) -> None:
    choices = [kept(run(llm, prompt(0), layer=layer, keep=20)[1]) for layer in (12, 13, 14)]
    assert len({tuple(choice) for choice in choices}) == 3


def test_layers_before_the_filter_run_and_no_others(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = llm.engine.decoder
    calls: list[tuple[int, int]] = []
    original = decoder.run_layer

    def counted(index: int, hidden: torch.Tensor, *rest: object) -> None:
        calls.append((index, len(hidden)))
        original(index, hidden, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(decoder, "run_layer", counted)
    run(llm, prompt(1), layer=13, keep=20)
    first_run = [call for call in calls if call[0] < 13][: 13 * 4]
    assert [index for index, _ in first_run] == [layer for layer in range(13) for _ in range(4)]
    assert sum(count for _, count in calls[: len(first_run)]) == 13 * 100
    # What follows is the second run: every layer over the kept tokens, and then the decodes.
    rest = calls[len(first_run) :]
    assert sum(count for index, count in rest if index == 0) == 20 + PARAMS.max_tokens - 1
    assert {index for index, _ in rest} == set(range(LAYERS))


def test_the_second_run_is_a_fresh_one(llm: LLM, model: LlamaForCausalLM) -> None:
    tokens, report = run(llm, prompt(2), layer=5, keep=30)
    gathered = [prompt(2)[place] for place in kept(report)]
    [fresh] = llm.generate({"prompt_token_ids": gathered}, PARAMS)
    assert tokens == fresh.outputs[0].token_ids
    told = replace(PARAMS, logprobs=5)
    filtered, alone = (
        llm.generate({"prompt_token_ids": ids}, told, prompt_filter=options)[0].outputs
        for ids, options in ((prompt(2), {"method": "gemfilter", "layer": 5, "keep": 30}), (gathered, None))
    )
    assert filtered == alone  # log-probabilities to the last bit, and so positions
    assert tokens == greedy(model, gathered, PARAMS.max_tokens or 0)


@pytest.mark.parametrize("keep", [100, 5000, 1.0])
def test_keeping_all_is_the_plain_model(llm: LLM, keep: int | float) -> None:
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logprobs=5)
    plain, filtered = (
        llm.generate({"prompt_token_ids": prompt(3)}, params, prompt_filter=options)[0]
        for options in (None, {"method": "gemfilter", "keep": keep, "layer": 5})
    )
    assert filtered.outputs == plain.outputs  # log-probabilities to the last bit
    assert filtered.prompt_filter is not None
    assert filtered.prompt_filter.bypassed == "all tokens would be kept"


def test_one_choice_per_request_of_the_right_size(llm: LLM) -> None:
    for seed, count, keep in ((4, 33, 7), (5, 100, 100), (6, 90, 0.25)):
        _, report = run(llm, prompt(seed, count), layer=3, keep=keep)
        size = min(count, keep if isinstance(keep, int) else 23)
        assert report.kept_tokens == size
        if report.kept is not None:
            assert len(report.kept) == size
            assert report.kept == sorted(set(report.kept))
            assert set(report.kept) <= set(range(count))


def test_a_batch_of_different_lengths_is_each_alone(llm: LLM, directory: Path) -> None:
    prompts = [prompt(seed, 20 + 17 * seed) for seed in range(7)]
    options = {"method": "gemfilter", "layer": 4, "keep": 0.3}
    together = llm.generate([{"prompt_token_ids": ids} for ids in prompts], PARAMS, prompt_filter=options)
    alone = LLM(directory, max_num_seqs=1, enable_prefix_caching=False)
    for ids, output in zip(prompts, together, strict=True):
        [expected] = alone.generate({"prompt_token_ids": ids}, PARAMS, prompt_filter=options)
        assert output.outputs[0].token_ids == expected.outputs[0].token_ids
        assert output.prompt_filter is not None
        assert expected.prompt_filter is not None
        assert output.prompt_filter.kept == expected.prompt_filter.kept


def test_policies_change_exactly_their_tokens(llm: LLM, model: LlamaForCausalLM) -> None:
    token_ids, layer, keep = prompt(8), 6, 20
    scores = gemfilter_scores(model, token_ids, layer)
    order = scores.sort(descending=True).indices.tolist()

    def choice(**options: object) -> list[int]:
        return kept(run(llm, token_ids, layer=layer, keep=keep, **options)[1])

    assert choice() == choice(policy="published") == sorted(order[:20])
    others = [place for place in order if place not in (0, 1)]
    assert choice(keep_first=2) == sorted([0, 1, *others[:18]])
    others = [place for place in order if place < 97]
    assert choice(keep_last=3) == sorted([97, 98, 99, *others[:17]])
    means = [scores[start : start + 10].mean() for start in range(0, 100, 10)]
    best = sorted(sorted(range(10), key=lambda run: -means[run])[:2])
    assert choice(chunk=10) == [place for run in best for place in range(10 * run, 10 * run + 10)]
    assert choice(pool=1) == sorted(unpooled(model, token_ids, layer).topk(20).indices.tolist())


def unpooled(model: LlamaForCausalLM, token_ids: list[int], layer: int, window: int = 1) -> torch.Tensor:
    query, key = queries_and_keys(model, token_ids, layer)
    products = query[:, -window:] @ key.repeat_interleave(len(query) // len(key), 0).transpose(1, 2)
    return (products * seen(window, len(token_ids))).sum((0, 1))


def seen(window: int, tokens: int) -> torch.Tensor:
    return torch.arange(tokens) <= torch.arange(tokens - window, tokens)[:, None]


def test_window_and_softmax_scores(llm: LLM, model: LlamaForCausalLM) -> None:
    token_ids, layer = prompt(9), 6
    expected = unpooled(model, token_ids, layer, window=8).topk(20).indices
    _, report = run(llm, token_ids, layer=layer, keep=20, pool=1, window=8)
    assert kept(report) == sorted(expected.tolist())

    query, key = queries_and_keys(model, token_ids, layer)
    repeated = key.repeat_interleave(len(query) // len(key), 0)
    logits = query[:, -8:] @ repeated.transpose(1, 2) * query.shape[-1] ** -0.5
    weights = logits.masked_fill(~seen(8, 100), float("-inf")).softmax(-1).sum((0, 1))
    _, report = run(llm, token_ids, layer=layer, keep=20, pool=1, window=8, softmax=True)
    assert kept(report) == sorted(weights.topk(20).indices.tolist())


def test_original_positions(llm: LLM, model: LlamaForCausalLM) -> None:
    token_ids = prompt(10)
    tokens, report = run(llm, token_ids, layer=6, keep=30, positions="original")
    fresh, plain = run(llm, token_ids, layer=6, keep=30)
    assert kept(report) == kept(plain)
    ids = [token_ids[place] for place in kept(report)]
    positions = kept(report)
    expected: list[int] = []
    for _ in range(PARAMS.max_tokens or 0):
        logits = model(torch.tensor([ids + expected]), position_ids=torch.tensor([positions])).logits
        expected.append(int(logits[0, -1].argmax()))
        positions = [*positions, 100 + len(expected) - 1]
    assert tokens == expected
    assert tokens != fresh


@pytest.mark.parametrize(("positions", "shared"), [("fresh", True), ("original", False)])
def test_pages_of_equal_tokens_are_shared_at_equal_positions_only(
    llm: LLM, positions: str, shared: bool
) -> None:
    common = prompt(11 if shared else 12, 40)
    options = {"method": "gemfilter", "layer": 2, "keep": 40, "positions": positions}
    before = {"prompt_token_ids": [*common, *prompt(13, 30)]}
    behind = {"prompt_token_ids": [*prompt(13, 30), *common]}
    llm.generate(before, PARAMS, prompt_filter={**options, "keep_first": 40})
    [output] = llm.generate(behind, PARAMS, prompt_filter={**options, "keep_last": 40})
    assert (output.num_cached_tokens > 0) == shared


def test_an_equal_prompt_is_filtered_from_memory(llm: LLM) -> None:
    first, report = run(llm, prompt(13), layer=4, keep=20)
    again, remembered = run(llm, prompt(13), layer=4, keep=20)
    assert not report.from_memory
    assert remembered.from_memory
    assert remembered.kept == report.kept
    assert again == first
    assert not run(llm, prompt(13), layer=5, keep=20)[1].from_memory


def test_the_last_token_may_be_missing(llm: LLM) -> None:
    """The published policy forces nothing in; how often the last token is lost is for the report to tell."""
    missing = [99 not in kept(run(llm, prompt(seed), layer=8, keep=10)[1]) for seed in range(20, 40)]
    assert any(missing)
    assert all(99 in kept(run(llm, prompt(seed), layer=8, keep=10, keep_last=1)[1]) for seed in range(20, 25))


def test_completions_of_one_prompt(llm: LLM) -> None:
    params = SamplingParams(n=3, seed=5, max_tokens=6, ignore_eos=True)
    [output] = llm.generate(
        {"prompt_token_ids": prompt(14)},
        params,
        prompt_filter={"method": "gemfilter", "layer": 4, "keep": 20},
    )
    assert [len(completion.token_ids) for completion in output.outputs] == [6, 6, 6]
    gathered = [prompt(14)[place] for place in output.prompt_filter.kept]  # type: ignore[union-attr]
    [plain] = llm.generate({"prompt_token_ids": gathered}, params)
    assert [c.token_ids for c in output.outputs] == [c.token_ids for c in plain.outputs]


def test_kept_text_is_part_of_the_prompt(llm: LLM) -> None:
    [output] = llm.generate(
        "the cat sat on the mat and the dog ran after the cat, " * 8,
        PARAMS,
        prompt_filter={"method": "gemfilter", "layer": 4, "keep": 0.2, "explain": True},
    )
    report = output.prompt_filter
    assert report is not None
    assert report.spans is not None
    assert report.scores is not None
    covered = [place for span in report.spans for place in range(span.start, span.end)]
    assert covered == report.kept
    assert len(report.scores) == report.prompt_tokens
    for span in report.spans:
        ids = output.prompt_token_ids[span.start : span.end]
        assert span.text == llm.get_tokenizer().decode(ids, skip_special_tokens=False)
        assert span.text in (output.prompt or "") or span.start == 0
        assert span.score == pytest.approx(sum(report.scores[span.start : span.end]) / len(ids))
