import json
from pathlib import Path

import pytest

from lapidist.evaluation.serving.prompts import PromptMaker
from lapidist.models.random_tokenizer import byte_tokenizer
from lapidist.models.tokenizer import Tokenizer
from lapidist.workload.trace import TraceRequest, write_trace
from lapidist.workload.trace_spec import TraceSpec

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{second:02d},{10 + second},5\n" for second in range(10)
)
CHAT = [{"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c"}]}] * 4


def words(text: str) -> int:
    return len(text.split())


def load(source: object, context: int | None = None, **settings: object) -> tuple[TraceRequest, ...]:
    return TraceSpec(str(source), **settings).load(words, context)[0]


def test_files_are_told_apart_by_their_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(AZURE)
    (tmp_path / "b.json").write_text(json.dumps(CHAT))
    write_trace(tmp_path / "c.jsonl", [TraceRequest(0.5, 3, 4)])
    assert len(load(tmp_path / "a.csv")) == 10
    assert [request.prompt for request in load(tmp_path / "b.json", rate=1.0)] == ["a b"] * 4
    assert load(tmp_path / "c.jsonl") == (TraceRequest(0.5, 3, 4),)


def test_requests_duration_and_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(AZURE)
    assert len(load(path, requests=4)) == 4
    assert len(load(path, duration_seconds=3.5)) == 4
    fast = load(path, rate=100.0)
    assert len(fast) / fast[-1].arrival_seconds == pytest.approx(100.0)
    assert [request.prompt_tokens for request in load(path, context=20)] == [10, 11, 12, 13, 14, 15]
    assert TraceSpec(str(path)).load(None, 20)[1] == 4


def test_conversations_without_a_rate_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(CHAT))
    assert {request.arrival_seconds for request in load(tmp_path / "b.json")} == {0.0}
    assert load(tmp_path / "b.json", rate=2.0)[-1].arrival_seconds > 0


def test_made_up_traces() -> None:
    trace = load("poisson:5", requests=50, prompt_length="7", output_length="uniform:2:3")
    assert len(trace) == 50
    assert {request.prompt_tokens for request in trace} == {7}
    assert {request.output_tokens for request in trace} == {2, 3}
    assert len(load("poisson:5")) == 100
    assert load("poisson:5", rate=10.0)[9].arrival_seconds == pytest.approx(
        load("poisson:5")[9].arrival_seconds / 2
    )


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("poisson:", {}, "poisson:RATE"),
        ("poisson:fast", {}, "poisson:RATE"),
        ("poisson:0", {}, "above 0"),
        ("poisson:1", {"prompt_length": "long"}, "uniform:LOW:HIGH"),
        ("trace.parquet", {}, "a trace is a"),
        ("none.csv", {}, "cannot be read"),
        ("poisson:1", {"duration_seconds": 1e-9}, "no request to replay"),
    ],
)
def test_bad_sources_are_one_sentence(source: str, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(source, **settings)


def test_other_impossible_sources(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(json.dumps(CHAT))
    with pytest.raises(ValueError, match="need a tokenizer"):
        TraceSpec(str(tmp_path / "b.json")).load(None, None)
    with pytest.raises(ValueError, match="longer than the context of 2 tokens"):
        load(tmp_path / "b.json", context=2)


def test_prompts_have_their_length_and_differ() -> None:
    tokenizer = Tokenizer(byte_tokenizer(300, {0: "<|bos|>", 7: "<|eos|>"}))
    make, text = PromptMaker(tokenizer, seed=3), PromptMaker(None)
    prompts = [make(index, TraceRequest(0.0, 50, 1)) for index in range(20)]
    assert all(len(prompt) == 50 and not {0, 7} & set(prompt) for prompt in prompts)
    assert len({tuple(prompt) for prompt in prompts}) == 20
    assert PromptMaker(tokenizer, seed=3)(4, TraceRequest(0.0, 50, 1)) == prompts[4]
    assert PromptMaker(tokenizer, seed=4)(4, TraceRequest(0.0, 50, 1)) != prompts[4]
    assert len(text(0, TraceRequest(0.0, 50, 1)).split()) == 50
    assert make(0, TraceRequest(0.0, 50, 1, prompt="as it is")) == "as it is"
