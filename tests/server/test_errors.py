"""Whatever goes wrong, the client gets an object of the OpenAI API's shape and the right status."""

import gzip
import json
from typing import Any

import pytest

CHAT = {"model": "random-llama", "messages": [{"role": "user", "content": "the cat"}], "max_tokens": 2}
COMPLETION = {"model": "random-llama", "prompt": "the cat", "max_tokens": 2}


def check(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    assert "Traceback" not in response.text
    return body["error"]


@pytest.fixture
def http(served):
    with served.http() as http:
        yield http
    served.assert_idle()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"model": "random-llama", "prompt": "x"',
        b'{"model": "random-llama", "prompt": "\\ud800"}',
        b'{"model": "random-llama", "prompt": "\xff\xfe"}',
        b'\xef\xbb\xbf{"model": "random-llama", "prompt": "x"}',
        '{"model": "random-llama", "prompt": "x"}'.encode("utf-16"),
        b'{"model": "random-llama", "prompt": "x", "temperature": NaN}',
        b'{"model": "random-llama", "prompt": "x", "temperature": Infinity}',
        b'{"model": "random-llama", "prompt": "x", "temperature": 1e999}',
        b'{"model": "random-llama", "prompt": "x", "n": ' + b"9" * 5000 + b"}",
        b'{"model": "random-llama", "prompt": "x", "n": 1e400}',
        b'{"model": "random-llama", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "random-llama", "prompt": "x", "guided_json": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
        b"[]",
        b"null",
        b'"text"',
        b"1",
        gzip.compress(json.dumps(COMPLETION).encode()),
    ],
)
def test_broken_bodies(http, body: bytes) -> None:
    check(http.post("/v1/completions", content=body, headers={"content-type": "application/json"}), 400)


def test_of_a_key_given_twice_the_last_counts(http) -> None:
    body = b'{"model": "x", "model": "random-llama", "prompt": "a", "max_tokens": 1}'
    response = http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "\xff"],
)
def test_content_types(http, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type.encode("latin-1")}
    body = json.dumps(COMPLETION).encode()
    error = check(http.post("/v1/completions", content=body, headers=headers), 415)
    assert "application/json" in error["message"]


def test_content_type_with_parameters(http) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    response = http.post("/v1/completions", content=json.dumps(COMPLETION), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/embeddings", "/v1/completions/", "/docs", "/%ed%a0%80"]
)
def test_unknown_address(http, path: str) -> None:
    check(http.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/completions"),
        ("DELETE", "/v1/chat/completions"),
        ("POST", "/v1/models"),
        ("POST", "/health"),
        ("BREW", "/metrics"),
    ],
)
def test_wrong_method(http, method: str, path: str) -> None:
    response = http.request(method, path)
    check(response, 405)
    assert response.headers["allow"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 1000}, "n"),
        ({"logprobs": 21}, "logprobs"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 257}, "stop"),
        ({"prompt": ["x"] * 65}, "prompt"),
        ({"prompt": ["x"] * 64, "n": 3}, "n"),
        ({"prompt": "x" * 2000}, "prompt"),
        ({"prompt": ["x", "x" * 2000]}, "prompt[1]"),
        ({"prompt": ""}, "prompt"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": [10**6]}, None),
        ({"stop_token_ids": [10**6]}, None),
        ({"logit_bias": {"1000000": 1}}, None),
        ({"guided_regex": "("}, None),
        ({"guided_json": {"type": "no such type"}}, None),
        ({"guided_regex": "(a{1000}){1000}"}, None),
        ({"min_tokens": 3}, None),
    ],
)
def test_refused_completions(http, fields: dict[str, Any], param: str | None) -> None:
    for stream in (False, True):
        body = {**COMPLETION, **fields}
        response = http.post("/v1/completions", json=body if not stream else {**body, "stream": True})
        if stream and param == "stream_options":
            continue
        assert check(response, 400)["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"messages": [{"role": "user", "content": "x" * 3000}]}, "messages"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"self": 1}}, "chat_template_kwargs"),
    ],
)
def test_refused_chats(http, fields: dict[str, Any], param: str) -> None:
    assert check(http.post("/v1/chat/completions", json={**CHAT, **fields}), 400)["param"] == param


def test_context_length_has_its_code(http) -> None:
    error = check(http.post("/v1/completions", json={**COMPLETION, "prompt": "x" * 2000}), 400)
    assert error["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    "text", ["\x00", "a\x00b", "\U0010ffff", "\ufffe", "\u202e", "🙂" * 20, "\r\n\t\x1b[2J"]
)
def test_odd_characters_are_just_text(http, text: str) -> None:
    assert http.post("/v1/completions", json={**COMPLETION, "prompt": text}).status_code == 200
    body = {**CHAT, "messages": [{"role": "user", "content": text}], "stop": [text], "user": text}
    assert http.post("/v1/chat/completions", json=body).status_code == 200


def test_every_response_has_a_request_id(http) -> None:
    ids = [http.get(path).headers["x-request-id"] for path in ("/health", "/nothing", "/v1/models")]
    assert len(set(ids)) == 3


def test_version_and_openapi_document(http) -> None:
    assert http.get("/version").json()["version"]
    document = http.get("/openapi.json").json()
    assert "/v1/chat/completions" in document["paths"]
