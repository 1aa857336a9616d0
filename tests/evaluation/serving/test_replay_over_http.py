import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lapidist.evaluation.serving.benchmark import Benchmark, BenchmarkResult
from lapidist.evaluation.serving.http_target import HttpTarget
from lapidist.evaluation.serving.report import to_json
from lapidist.models.random_tokenizer import byte_tokenizer
from lapidist.models.tokenizer import Tokenizer
from lapidist.workload.serving_metrics import Objective
from lapidist.workload.trace_spec import TraceSpec


def spec(rate: float = 1000, **changes: object) -> TraceSpec:
    fields = {"requests": 20, "prompt_length": "uniform:1:9", "output_length": "uniform:3:6"}
    return TraceSpec(f"poisson:{rate}", **(fields | changes))


async def run(
    peer: object,
    benchmark: Benchmark,
    progress: Callable[[int, int], None] = lambda *_: None,
    **settings: object,
) -> BenchmarkResult:
    async with HttpTarget(peer.url, **settings) as target:
        return await benchmark.run(target, progress=progress)


async def test_open_loop_measures_every_request(peer) -> None:
    seen: list[tuple[int, int]] = []
    result = await run(peer, Benchmark(spec()), lambda *pair: seen.append(pair))
    trace, _ = spec().load(None, None)
    metrics = result.metrics
    assert (metrics.completed, metrics.failed, metrics.unfinished) == (20, 0, 0)
    assert metrics.output_tokens == sum(request.output_tokens for request in trace)
    assert metrics.prompt_tokens == sum(request.prompt_tokens for request in trace)
    assert seen == [(number, 20) for number in range(21)]
    for record, request in zip(result.records, trace, strict=True):
        assert record.due_seconds == request.arrival_seconds
        assert len(record.chunk_seconds) == request.output_tokens
        assert record.due_seconds < record.chunk_seconds[0]
        assert record.chunk_seconds == sorted(record.chunk_seconds)


async def test_open_loop_waits_for_the_trace_and_for_nothing_else(peer) -> None:
    peer.pause_seconds = 0.1  # answers take far longer than the gaps, so requests must pile up
    result = await run(peer, Benchmark(spec(rate=200, requests=12)))
    assert peer.most_running > 6
    assert result.metrics.duration_seconds >= result.records[-1].due_seconds


async def test_closed_loop_keeps_so_many_under_way(peer) -> None:
    result = await run(peer, Benchmark(spec(rate=0.001), concurrency=3))
    assert result.metrics.completed == 20
    assert peer.most_running == 3


async def test_what_is_asked_of_the_server(peer) -> None:
    await run(peer, Benchmark(spec(requests=2)))
    probe, *bodies = peer.bodies
    assert probe["max_tokens"] == 1
    for body in bodies:
        assert body["model"] == "peer"
        assert body["stream"] is True
        assert body["stream_options"] == {"include_usage": True}
        assert body["ignore_eos"] is True
        assert body["temperature"] == 0
        assert isinstance(body["prompt"], str)
    assert bodies[0]["prompt"] != bodies[1]["prompt"]


async def test_with_a_tokenizer_prompts_are_exact(peer) -> None:
    tokenizer = Tokenizer(byte_tokenizer(300, {0: "<|eos|>"}))
    async with HttpTarget(peer.url) as target:
        await Benchmark(spec()).run(target, tokenizer, context_tokens=12)
    trace, left_out = spec().load(None, 12)
    assert 0 < left_out < 20
    prompts = [body["prompt"] for body in peer.bodies[1:]]
    assert sorted(len(prompt) for prompt in prompts) == sorted(request.prompt_tokens for request in trace)
    assert all(0 < token < 300 for prompt in prompts for token in prompt)


async def test_a_server_without_ignore_eos_is_asked_without(peer) -> None:
    peer.knows_ignore_eos = False
    result = await run(peer, Benchmark(spec(requests=5)))
    assert result.metrics.completed == 5
    assert all("ignore_eos" not in body for body in peer.bodies[2:])


async def test_without_usage_the_pieces_are_counted(peer) -> None:
    peer.tells_usage = False
    result = await run(peer, Benchmark(spec()))
    trace, _ = spec().load(None, None)
    assert result.metrics.output_tokens == sum(request.output_tokens for request in trace)
    assert [record.prompt_tokens for record in result.records] == [request.prompt_tokens for request in trace]


async def test_refusals_are_counted_and_the_rest_goes_on(peer) -> None:
    peer.refuse_every = 5
    result = await run(peer, Benchmark(spec(), objective=Objective(ttft_seconds=60)))
    assert (result.metrics.completed, result.metrics.failed) == (16, 4)
    assert result.metrics.errors == {"429 the queue is full": 4}
    assert result.metrics.objective_met == 0.8


@pytest.mark.parametrize(
    ("manner", "message"),
    [
        ("break_off", "the stream ended without [DONE]"),
        ("error_in_stream", "out of memory"),
        ("nonsense", "the stream holds no JSON object: {not json}"),
        ("empty", "the answer was empty"),
    ],
)
async def test_bad_streams_are_failures(peer, manner: str, message: str) -> None:
    setattr(peer, manner, True)
    result = await run(peer, Benchmark(spec(requests=3)))
    assert result.metrics.errors == {message: 3}
    assert result.metrics.completed == 0


async def test_a_key_is_sent(peer) -> None:
    peer.api_key = "secret"
    result = await run(peer, Benchmark(spec(requests=1)), api_key="secret")
    assert result.metrics.completed == 1
    with pytest.raises(ValueError, match="401 wrong key"):
        await run(peer, Benchmark(spec(requests=1)), api_key="guess")


async def test_unusable_servers_are_one_sentence(peer) -> None:
    peer.models = []
    with pytest.raises(ValueError, match="lists no model"):
        await run(peer, Benchmark(spec(requests=1)))
    result = await run(peer, Benchmark(spec(requests=1)), model="mine")
    assert result.metrics.completed == 1
    assert peer.bodies[-1]["model"] == "mine"
    peer.url = "http://127.0.0.1:9"
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9/v1/: ConnectError"):
        await run(peer, Benchmark(spec(requests=1)))


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/"])
async def test_urls_with_and_without_version(peer, ending: str) -> None:
    peer.url += ending
    assert (await run(peer, Benchmark(spec(requests=1)))).metrics.completed == 1


async def test_cancelling_keeps_what_has_been_measured_and_hangs_up(peer) -> None:
    peer.pause_seconds = 0.05
    enough = asyncio.Event()
    progress = lambda finished, _: enough.set() if finished >= 3 else None  # noqa: E731
    task = asyncio.create_task(run(peer, Benchmark(spec(requests=40), concurrency=4), progress))
    await enough.wait()
    task.cancel()
    result = await task
    assert result.stopped
    assert 3 <= result.metrics.completed < 40
    assert result.metrics.unfinished > 0
    for _ in range(100):
        await asyncio.sleep(0.02)
        if peer.running == 0:
            break
    assert peer.running == 0
    assert json.loads(to_json("peer", Benchmark(spec()), result))["stopped"] is True


async def test_json_holds_every_request(peer) -> None:
    peer.refuse_every = 4
    benchmark = Benchmark(spec(requests=6), objective=Objective(1.0, None))
    result = await run(peer, benchmark)
    report = json.loads(to_json("peer", benchmark, result))
    assert report["settings"]["trace"]["source"] == "poisson:1000"
    assert report["settings"]["objective"] == {"ttft_seconds": 1.0, "tpot_seconds": None}
    assert len(report["requests"]) == 6
    assert sum("error" in request for request in report["requests"]) == report["metrics"]["failed"] == 1
    assert report["metrics"]["ttft"]["p50"] > 0


async def test_text_of_conversations_is_sent_as_it_is(peer, tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "What is a lapidary?"},
        {"from": "gpt", "value": "A cutter of stones."},
    ]
    (tmp_path / "chat.json").write_text(json.dumps([{"conversations": turns}] * 3))
    tokenizer = Tokenizer(byte_tokenizer(300, {0: "<|eos|>"}))
    benchmark = Benchmark(TraceSpec(str(tmp_path / "chat.json")))
    async with HttpTarget(peer.url) as target:
        result = await benchmark.run(target, tokenizer)
    assert result.metrics.completed == 3
    assert peer.bodies[-1]["prompt"] == "What is a lapidary?"
    assert peer.bodies[-1]["max_tokens"] == len("A cutter of stones.")
