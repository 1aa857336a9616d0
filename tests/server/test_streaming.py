"""What a stream looks like on the wire, and that it always says what the whole answer says."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MODEL = "random-llama"
MESSAGES = [{"role": "user", "content": "the cat"}]
LASTING = {"model": MODEL, "prompt": "the cat", "max_tokens": 60_000, "ignore_eos": True, "stream": True}


def events(http: Any, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    response = http.post(path, json={**body, "stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    *lines, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert all(line.startswith("data: {") and "\n" not in line for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_chat_events(served) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 5, "ignore_eos": True, "n": 2}
    with served.http() as http:
        found = events(http, "/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
    *chunks, usage = found
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in found}) == 1
    for index in range(2):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
        assert own[-1]["delta"] == {}
        assert own[-1]["finish_reason"] == "length"
        assert all(choice["finish_reason"] is None for choice in own[:-1])
        assert all(set(choice["delta"]) == {"content"} for choice in own[1:-1])
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 10
    assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] >= 0


def test_without_include_usage_there_is_none(served) -> None:
    with served.http() as http:
        body = {"model": MODEL, "prompt": "the cat", "max_tokens": 3}
        assert all("usage" not in chunk for chunk in events(http, "/v1/completions", body))


FIELDS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 1000),
        "max_tokens": st.integers(1, 12),
        "temperature": st.sampled_from([0, 0.7, 2]),
    },
    optional={
        "n": st.integers(1, 3),
        "ignore_eos": st.booleans(),
        "stop": st.lists(st.sampled_from(["a", "e", " t", "th", "\ufffd", "1"]), max_size=3),
        "include_stop_str_in_output": st.booleans(),
        "skip_special_tokens": st.booleans(),
        "top_k": st.integers(0, 5),
        "min_tokens": st.just(1),
        "guided_regex": st.just("[a-f]{2,6}"),
    },
).filter(lambda fields: not (fields.get("ignore_eos") and "guided_regex" in fields))
RELAXED = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


@given(
    fields=FIELDS,
    prompt=st.sampled_from(["the cat", ["the", "dog sat on"], [5, 6, 7], [[5], [6, 7]]]),
    data=st.data(),
)
@RELAXED
def test_a_completion_stream_says_what_the_whole_says(served, fields, prompt, data) -> None:
    logprobs = data.draw(st.none() | st.integers(0, 3))
    body = {
        "model": MODEL,
        "prompt": prompt,
        "logprobs": logprobs,
        "echo": data.draw(st.booleans()),
        **fields,
    }
    with served.http() as http:
        whole = http.post("/v1/completions", json=body).json()["choices"]
        chunks = events(http, "/v1/completions", body)
    for choice in whole:
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in own) == choice["text"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        if logprobs is None:
            assert choice["logprobs"] is None
        else:
            tokens = [token for part in own for token in part["logprobs"]["tokens"]]
            assert tokens == choice["logprobs"]["tokens"]


@given(fields=FIELDS, data=st.data())
@RELAXED
def test_a_chat_stream_says_what_the_whole_says(served, fields, data) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "logprobs": data.draw(st.booleans()), **fields}
    with served.http() as http:
        whole = http.post("/v1/chat/completions", json=body).json()["choices"]
        chunks = events(http, "/v1/chat/completions", body)
    for choice in whole:
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == choice["index"]]
        text = "".join(part["delta"].get("content", "") for part in own)
        assert text == choice["message"]["content"]
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        tokens = [token["token"] for part in own if part["logprobs"] for token in part["logprobs"]["content"]]
        assert tokens == [token["token"] for token in (choice["logprobs"] or {"content": []})["content"]]


def test_an_error_in_the_middle_is_an_event(start) -> None:
    with start() as served, served.http() as http:
        with http.stream("POST", "/v1/completions", json=LASTING) as response:
            lines = (line for line in response.iter_lines() if line)
            assert "error" not in json.loads(next(lines).removeprefix("data: "))
            served.engine.shutdown()
            *_, error, done = lines
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "service_unavailable"
        assert done == "data: [DONE]"
