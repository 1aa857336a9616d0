"""Requests with prompt filters among others: pages, fairness, aborts, preemption, lengths."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.engine.engine import Engine, EngineConfig
from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.request import Request
from lapidist.engine.sampling_params import SamplingParams, StructuredOutput
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.workload.step import read_steps
from tests.checkpoints import write_random_llama, write_tokenizer
from tests.family_checkpoints import VARIANTS, WINDOW, build, save
from tests.quantized_checkpoints import EIGHT_BITS, formats, quantize_at_random

LETTER = 72  # a whole character: the text of the reply begins with nothing that the prompt left unfinished

METHODS: list[dict[str, Any]] = [
    {"method": "gemfilter", "layer": 1, "keep": 20},
    {"method": "gemfilter", "layer": 1, "keep": 0.3, "positions": "original"},
    {"method": "snapkv", "keep": 16, "window": 4},
    {"method": "h2o", "keep": 16, "recent": 4},
    {"method": "streamingllm", "keep": 12},
    {"method": "fastkv", "keep": 12, "layer": 0, "window": 4},
    {"method": "adaptive", "least": 8, "keep_last": 4, "gain": 1.0},
]


def engine(directory: Path, pages: int = 512, page_size: int = 4, **options: Any) -> Engine:
    config = Engine(EngineConfig(directory, dtype="float32", kv_cache_bytes=1 << 20)).config
    page_bytes = PagedKVCache.bytes_per_page(
        config.num_layers, page_size, config.num_kv_heads, config.head_dim, torch.float32
    )
    return Engine(
        EngineConfig(
            directory, dtype="float32", page_size=page_size, kv_cache_bytes=pages * page_bytes, **options
        )
    )


def prompt(seed: int, count: int) -> list[int]:
    return torch.randint(3, 300, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def start(
    engine: Engine, request_id: str, token_ids: list[int], prompt_filter: Any = None, tokens: int = 8
) -> Request:
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, prompt_filter=prompt_filter)
    request = engine.prepare(request_id, {"prompt_token_ids": token_ids}, params)
    engine.add(request)
    return request


def finish(engine: Engine) -> None:
    while engine.has_work():
        engine.step()


def generated(request: Request) -> list[int]:
    return request.output().outputs[0].token_ids


@pytest.mark.parametrize("options", METHODS)
def test_keys_and_values_in_the_cache_are_those_kept_and_generated(
    llama_directory: Path, options: dict[str, Any]
) -> None:
    small = engine(llama_directory, page_size=1, max_num_batched_tokens=16, max_num_seqs=4)
    request = start(small, "a", prompt(0, 100), options, tokens=6)
    while small.scheduler.filtering:
        assert small.pool.num_held == 0  # no page belongs to a prompt that is being filtered
        assert all(not layer.any() for layer in small.runner.cache.keys)
        small.step()
    while not generated(request):
        small.step()
    report = request.filter_report
    assert report is not None
    sequence = request.completions[0].sequence
    bytes_per_token = 2 * small.config.num_layers * small.config.num_kv_heads * small.config.head_dim * 4
    steps = 0
    while not request.finished:
        assert sequence.num_computed == report.kept_tokens + steps
        assert small.pool.num_held == report.kept_tokens + steps
        held = small.pool.num_held * small.runner.cache.keys[0][0].nbytes * 2 * small.config.num_layers
        assert held == bytes_per_token * (report.kept_tokens + steps)
        small.step()
        steps += 1
    assert small.pool.num_held == 0


def test_scratch_is_freed_before_the_second_run(llama_directory: Path) -> None:
    small = engine(llama_directory, max_num_batched_tokens=16, max_num_seqs=4)
    request = start(small, "a", prompt(0, 200), METHODS[0])
    small.step()
    [run] = small._filters._runs.values()
    assert run._layers is not None
    while small.scheduler.filtering:
        small.step()
    assert not small._filters._runs
    assert run._layers is None
    assert run._work is None
    assert not generated(request)


@pytest.mark.parametrize("options", METHODS)
def test_abort_in_the_middle_frees_everything(llama_directory: Path, options: dict[str, Any]) -> None:
    small = engine(llama_directory, max_num_batched_tokens=16, max_num_seqs=4)
    request = start(small, "a", prompt(0, 300), options)
    other = start(small, "b", prompt(1, 20))
    small.step()
    assert small._filters._runs
    small.abort_request("a")
    assert not small._filters._runs
    assert not small.scheduler.filtering
    assert request.output().outputs[0].finish_reason == "abort"
    finish(small)
    assert len(generated(other)) == 8
    assert small.pool.num_held == 0
    assert not small._completions


@pytest.mark.parametrize("options", METHODS)
def test_abort_after_the_filter_frees_everything(llama_directory: Path, options: dict[str, Any]) -> None:
    """Between the filter's end and the first pages."""
    small = engine(llama_directory, max_num_batched_tokens=16, max_num_seqs=4)
    start(small, "a", prompt(0, 100), options)
    while small.scheduler.filtering:
        small.step()
    small.abort_request("a")
    assert not small.runner._handed_over
    assert small.pool.num_held == 0
    assert not small.has_work()


def test_others_get_ahead_while_a_prompt_is_filtered(llama_directory: Path) -> None:
    small = engine(llama_directory, max_num_batched_tokens=16, max_num_seqs=4)
    decoding = start(small, "decoding", prompt(0, 5), tokens=40)
    small.step()
    filtering = start(small, "filtering", prompt(1, 400), METHODS[0])
    late = start(small, "late", prompt(2, 30), tokens=2)
    steps = 0
    while small.scheduler.filtering:
        before = len(generated(decoding))
        small.step()
        steps += 1
        assert len(generated(decoding)) == before + 1
    assert steps > 10
    assert late.finished
    assert not generated(filtering)
    finish(small)
    assert len(generated(filtering)) == 8


def test_a_stream_of_prompts_does_not_hold_up_a_filter(llama_directory: Path) -> None:
    small = engine(llama_directory, max_num_batched_tokens=16, max_num_seqs=4)
    filtering = start(small, "filtering", prompt(0, 200), METHODS[0])
    for count in range(200):
        if generated(filtering):
            break
        start(small, f"other-{count}", prompt(count, 100), tokens=1)
        small.step()
    assert generated(filtering)


def test_handed_over_keys_do_not_pile_up(llama_directory: Path) -> None:
    small = engine(llama_directory, pages=24, max_num_batched_tokens=64, max_num_seqs=4)
    options = {"method": "snapkv", "keep": 40, "window": 4}
    requests = [start(small, str(index), prompt(index, 50), options, tokens=30) for index in range(8)]
    most = 0
    while small.has_work():
        small.step()
        most = max(most, len(small.runner._handed_over))
    assert all(len(generated(request)) == 30 for request in requests)
    assert most <= 3  # those that one step's share can filter


def test_filters_run_in_order_of_arrival(llama_directory: Path) -> None:
    small = engine(llama_directory, max_num_batched_tokens=64, max_num_seqs=4)
    requests = [start(small, str(i), prompt(i, 30 + i), METHODS[0]) for i in range(6)]
    finish(small)
    times = [request.metrics.first_token_time for request in requests]
    assert times == sorted(times)  # type: ignore[type-var]


@pytest.mark.parametrize("options", METHODS[:-1])
def test_a_prompt_longer_than_the_cache_is_served_if_what_is_kept_fits(
    llama_directory: Path, options: dict[str, Any]
) -> None:
    small = engine(llama_directory, pages=16, max_num_batched_tokens=16, max_num_seqs=2)
    assert small.max_model_len == 64
    assert small.max_context == 512
    options = {**options, "keep": 30}
    request = start(small, "a", prompt(0, 300), options, tokens=10)
    finish(small)
    assert len(generated(request)) == 10
    large = engine(llama_directory)
    expected = start(large, "a", prompt(0, 300), options, tokens=10)
    finish(large)
    assert generated(request) == generated(expected)


def test_adaptive_does_not_run_plainly_what_the_cache_does_not_hold(llama_directory: Path) -> None:
    options = {**METHODS[-1], "gain": 50}
    large, small = engine(llama_directory), engine(llama_directory, pages=16, max_num_seqs=2)
    for own, is_plain in ((large, True), (small, False)):
        request = start(own, "a", prompt(0, 300), options)
        finish(own)
        assert request.filter_report is not None
        assert (request.filter_report.bypassed is not None) == is_plain
        assert len(generated(request)) == 8


def test_generation_ends_where_there_is_no_more_room(llama_directory: Path) -> None:
    small = engine(llama_directory, pages=16, max_num_batched_tokens=16, max_num_seqs=2)
    fresh = start(small, "fresh", prompt(0, 500), {"method": "gemfilter", "layer": 1, "keep": 50}, tokens=99)
    original = start(small, "original", prompt(0, 505), {"method": "snapkv", "keep": 50}, tokens=99)
    finish(small)
    assert len(generated(fresh)) == 64 - 50  # of the cache
    assert len(generated(original)) == 512 - 505  # of the positions
    assert fresh.output().outputs[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("count", "options", "named"),
    [
        (300, {"method": "gemfilter", "layer": 1, "keep": 64}, "keeps 64"),
        (600, {"method": "gemfilter", "layer": 1, "keep": 10}, "context is 512"),
        (512, {"method": "snapkv", "keep": 10}, "keeps 10"),
        (300, {"method": "gemfilter", "keep": 10, "threshold": 400}, "threshold"),
        (300, {"method": "gemfilter", "layer": 2, "keep": 10}, "0 to 1"),
        (300, {"method": "fastkv", "layer": 2, "keep": 10}, "0 to 1"),
    ],
)
def test_what_cannot_be_served_is_refused(
    llama_directory: Path, count: int, options: dict[str, Any], named: str
) -> None:
    small = engine(llama_directory, pages=16, max_num_batched_tokens=16, max_num_seqs=2)
    with pytest.raises(InvalidRequestError, match=named) as raised:
        start(small, "a", prompt(0, count), options)
    assert "\n" not in str(raised.value)
    assert not small.has_work()


def test_short_prompts_run_plainly_below_the_threshold(llama_directory: Path) -> None:
    small = engine(llama_directory)
    plain = start(small, "plain", prompt(0, 50))
    filtered = start(small, "filtered", prompt(0, 50), {**METHODS[2], "threshold": 51})
    finish(small)
    assert generated(filtered) == generated(plain)
    report = filtered.output().prompt_filter
    assert report is not None
    assert "threshold of 51" in (report.bypassed or "")


def test_a_filter_without_memory_fails_its_request_alone(
    llama_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = engine(llama_directory)
    monkeypatch.setattr("lapidist.engine.filter_stage.free_bytes", lambda device: 1000)
    failing = start(small, "a", prompt(0, 100), METHODS[0])
    other = start(small, "b", prompt(1, 20))
    finish(small)
    output = failing.output()
    assert output.finished
    assert output.outputs[0].finish_reason == "error"
    assert "1000 are free" in str(output.outputs[0].stop_reason)
    assert len(generated(other)) == 8


def test_steps_with_nothing_but_a_filter_are_recorded(llama_directory: Path, tmp_path: Path) -> None:
    small = engine(
        llama_directory, max_num_batched_tokens=16, max_num_seqs=4, record=tmp_path / "steps.jsonl"
    )
    start(small, "a", prompt(0, 100), METHODS[2], tokens=4)
    finish(small)
    small.close()
    steps = list(read_steps(tmp_path / "steps.jsonl"))
    assert small.stats().steps == len(steps)
    assert [step.sequences[0].kv_length for step in steps if step.sequences] == [17, 18, 19]
    assert [step.restored for step in steps if step.restored] == [(16,)]
    work = [each for step in steps for each in step.filters]
    layers = [(each.layer, each.query_length, each.kv_length) for each in work if each.work == "layer"]
    chunks = [(16, end) for end in range(16, 97, 16)] + [(4, 100)]
    assert layers == [(layer, *chunk) for layer in (0, 1) for chunk in chunks]
    assert sum(each.work == "attention_scores" for each in work) == 2


def test_steps_of_filtered_and_other_sequences_are_recorded(llama_directory: Path, tmp_path: Path) -> None:
    """A sequence that begins with handed-over keys samples without a token of its own in the step."""
    small = engine(
        llama_directory, max_num_batched_tokens=16, max_num_seqs=4, record=tmp_path / "steps.jsonl"
    )
    start(small, "decoding", prompt(1, 4), tokens=40)
    start(small, "filtered", prompt(0, 100), METHODS[2], tokens=4)
    finish(small)
    small.close()
    steps = list(read_steps(tmp_path / "steps.jsonl"))
    assert len(steps) == 40
    assert sum(len(step.sequences) for step in steps) == 40 + 3
    assert sum(step.logit_rows for step in steps) == 40 + 4


def test_counters(llama_directory: Path) -> None:
    small = engine(llama_directory)
    request = start(small, "a", prompt(0, 100), METHODS[0], tokens=1)
    assert small.stats().filtering == 1
    finish(small)
    stats = small.stats()
    assert (stats.filtering, stats.filtered_prompt_tokens, stats.filter_kept_tokens) == (0, 100, 20)
    assert stats.prompt_tokens == 100
    # One layer over the prompt (and the keys of the next, counted as a sixteenth), two over what is kept.
    assert stats.attention_rows == (100 + 7 + 2 * 20) * small.config.num_heads
    assert request.filter_report is not None
    assert request.filter_report.seconds > 0


@pytest.fixture(scope="module")
def alone(llama_directory: Path) -> Engine:
    return engine(llama_directory, max_num_seqs=1, max_num_batched_tokens=512, enable_prefix_caching=False)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    pages=st.integers(20, 60),
    max_num_seqs=st.integers(1, 5),
    extra_tokens=st.integers(0, 30),
    prefix_caching=st.booleans(),
)
def test_tokens_are_those_of_the_request_alone(
    llama_directory: Path,
    alone: Engine,
    seed: int,
    pages: int,
    max_num_seqs: int,
    extra_tokens: int,
    prefix_caching: bool,
) -> None:
    """With filters of all kinds, few pages (so that sequences are preempted), aborts and the prefix cache."""
    rng = random.Random(seed)
    crowded = engine(
        llama_directory,
        pages,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_seqs + extra_tokens,
        enable_prefix_caching=prefix_caching,
    )
    arrivals = []
    for index in range(rng.randint(1, 7)):
        count = rng.randint(1, 45)
        options = rng.choice([None, *METHODS])
        if options is not None and "keep" in options:
            options = {**options, "keep": rng.randint(1, 30)}
        if options is not None and options["method"] == "adaptive":
            options = {**options, "first_layer": 0}
        arrivals.append((str(index), prompt(rng.randint(0, 5), count), options, rng.randint(1, 30)))
    requests = {}
    aborted = set()
    pending = list(arrivals)
    while pending or crowded.has_work():
        while pending and rng.random() < 0.4:
            request_id, token_ids, options, tokens = pending.pop(0)
            requests[request_id] = start(crowded, request_id, token_ids, options, tokens)
        if requests and rng.random() < 0.02:
            victim = rng.choice(sorted(requests))
            if crowded.abort_request(victim) is not None:
                aborted.add(victim)
        if crowded.has_work():
            crowded.step()
    assert crowded.pool.num_held == 0
    assert not crowded._completions
    assert not crowded.runner._handed_over
    for request_id, token_ids, options, tokens in arrivals:
        expected = start(alone, request_id, token_ids, options, tokens)
        finish(alone)
        found = generated(requests[request_id])
        if request_id in aborted:
            assert found == generated(expected)[: len(found)]
        else:
            assert found == generated(expected)


def test_preempted_sequences_get_their_keys_again(llama_directory: Path, alone: Engine) -> None:
    small = engine(llama_directory, pages=14, max_num_batched_tokens=16, max_num_seqs=4)
    options = {"method": "snapkv", "keep": 16, "window": 4}
    requests = [start(small, str(i), prompt(i, 60), options, tokens=20) for i in range(3)]
    finish(small)
    assert small.scheduler.num_preemptions > 0
    for index, request in enumerate(requests):
        expected = start(alone, str(index), prompt(index, 60), options, tokens=20)
        finish(alone)
        assert generated(request) == generated(expected)


@pytest.mark.parametrize("options", METHODS)
def test_structured_completions_survive_preemption(
    llama_directory: Path, alone: Engine, options: dict[str, Any]
) -> None:
    """Two completions of each request, whose text must match, among others in few pages with a prefix cache."""
    params = SamplingParams(
        n=2,
        seed=7,
        max_tokens=12,
        structured_output=StructuredOutput(regex="[0-9]{3,200}"),
        prompt_filter=options,  # type: ignore[arg-type]
    )

    def run(engine: Engine, name: str, seed: int) -> Request:
        request = engine.prepare(name, {"prompt_token_ids": [*prompt(seed, 59), LETTER]}, params)
        engine.add(request)
        return request

    small = engine(llama_directory, pages=22, max_num_batched_tokens=16, max_num_seqs=4)
    requests = [run(small, name, seed) for name, seed in (("a", 0), ("b", 1), ("c", 0))]
    finish(small)
    for request, seed in zip(requests, (0, 1, 0), strict=True):
        expected = run(alone, "alone", seed)
        finish(alone)
        found = [(each.text, each.token_ids) for each in request.output().outputs]
        assert found == [(each.text, each.token_ids) for each in expected.output().outputs]
        assert [text for text, _ in found if not re.fullmatch("[0-9]{3,}", text)] == []
    assert small.pool.num_held == 0


@pytest.mark.parametrize("kv_bits", [8, 4])
def test_codes_in_the_cache_stay_what_they_are(llama_directory: Path, tmp_path: Path, kv_bits: int) -> None:
    """Keys and values that are handed over are those of a plain run, though they are quantized a second time."""
    quantize_at_random(
        llama_directory, tmp_path / "m", formats(EIGHT_BITS, activation_bits=8, kv_bits=kv_bits)
    )
    found = []
    for options in (None, {"method": "streamingllm", "keep": 50}):
        own = Engine(EngineConfig(tmp_path / "m", page_size=4))
        request = start(own, "a", prompt(0, 60), options, tokens=2)
        while not generated(request):
            own.step()
        pages = request.completions[0].sequence.pages
        caches = [part[pages] for layer in range(2) for part in own.runner.cache.numbers(layer)]
        found.append(torch.stack([part.transpose(1, 2).flatten(0, 1) for part in caches]))
    kept = [*range(4), *range(14, 60)]
    step = found[0].abs().max() / 2 ** (kv_bits - 1)
    assert (found[1][:, :50] - found[0][:, kept]).abs().max() < 0.5 * step


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    directory = save(build(VARIANTS["mistral"], 0), tmp_path_factory.mktemp("windowed") / "m")
    write_tokenizer(directory)
    return engine(directory)


def test_a_model_that_runs_on_gaps_needs_room_in_its_windows(windowed: Engine) -> None:
    ids = [5 + i % 100 for i in range(40)]
    original = {"method": "gemfilter", "layer": 1, "keep": 8, "positions": "original"}
    for options in (original, {"method": "fastkv", "layer": 0, "keep": 8}):
        with pytest.raises(InvalidRequestError, match="sliding windows of 11 tokens"):
            start(windowed, "refused", ids, options)
    request = start(windowed, "fresh", ids, {"method": "gemfilter", "layer": 1, "keep": 8}, tokens=3)
    inside = start(windowed, "inside", ids[:5], original | {"keep": 3}, tokens=2)
    finish(windowed)
    assert (len(generated(request)), len(generated(inside))) == (3, 2)


@pytest.mark.parametrize("keep", [WINDOW, WINDOW + 1, 30])
@pytest.mark.parametrize("method", ["snapkv", "h2o", "streamingllm"])
def test_windows_lose_nothing_that_they_see(windowed: Engine, method: str, keep: int) -> None:
    """Where every layer has a window, no more than the window is needed: the reply is that of the whole prompt."""
    ids = [token % 100 + 5 for token in prompt(3, 60)]
    plain = start(windowed, "plain", ids, tokens=20)
    filtered = start(windowed, "filtered", ids, {"method": method, "keep": keep}, tokens=20)
    finish(windowed)
    assert generated(filtered) == generated(plain)
    assert filtered.filter_report is not None
    assert filtered.filter_report.kept_tokens == keep


def test_layers_without_a_window_choose(tmp_path: Path) -> None:
    """Gemma 2 alternates: layers with a window keep the last tokens, the others those that are attended to."""
    directory = save(build(VARIANTS["gemma2"], 0), tmp_path / "m")
    write_tokenizer(directory)
    mixed = engine(directory)
    assert None in mixed.config.sliding_windows
    assert any(mixed.config.sliding_windows)
    ids = [token % 100 + 5 for token in prompt(3, 60)]
    request = start(mixed, "a", ids, {"method": "streamingllm", "keep": 10, "sinks": 3, "explain": True})
    finish(mixed)
    report = request.filter_report
    assert report is not None
    assert report.scores is not None
    share = sum(window is None for window in mixed.config.sliding_windows) / mixed.config.num_layers
    assert report.scores[:3] == pytest.approx([share] * 3)
    assert report.scores[50:53] == pytest.approx([1 - share] * 3)
    assert report.scores[53:] == pytest.approx([1.0] * 7)


def test_length_dependent_rope_sees_the_whole_prompt(tmp_path: Path) -> None:
    """Keeping all but a token gives the first token of the plain run: the angles are those of the whole length."""
    directory = write_random_llama(tmp_path / "m")
    config = json.loads((directory / "config.json").read_text())
    config["rope_scaling"] = {"rope_type": "dynamic", "factor": 4.0}
    config.pop("rope_parameters", None)
    config["max_position_embeddings"] = 64
    (directory / "config.json").write_text(json.dumps(config))
    small = engine(directory)
    assert small.config.rope.kind == "dynamic"
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=3)
    filtered = SamplingParams(
        temperature=0, max_tokens=1, logprobs=3, prompt_filter={"method": "snapkv", "keep": 62}
    )  # type: ignore[arg-type]
    found = []
    for index, own in enumerate((params, filtered)):
        request = small.prepare(str(index), {"prompt_token_ids": prompt(0, 63)}, own)
        small.add(request)
        finish(small)
        found.append(request.output().outputs)
    assert found[0] == found[1]
