"""No request, however made, gets a 5xx or keeps a page."""

import contextlib
import json
import random
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

MODEL = "random-llama"
RELAXED = settings(deadline=None, suppress_health_check=list(HealthCheck))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
BODIES = [
    {"model": MODEL, "prompt": "the cat", "max_tokens": 2, "n": 2, "stop": ["a", "b"], "logprobs": 2},
    {
        "model": MODEL,
        "prompt": [[1, 2], [3]],
        "max_tokens": 1,
        "echo": True,
        "stream": True,
        "temperature": 0.5,
    },
    {"model": MODEL, "prompt": "x", "max_tokens": 3, "guided_json": {"type": "object", "required": ["a"]}},
    {
        "model": MODEL,
        "messages": [{"role": "user", "content": "the cat"}],
        "max_tokens": 2,
        "logit_bias": {"5": 3},
    },
    {
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "max_tokens": 1,
    },
    {
        "model": MODEL,
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 1,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "null"}}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
    },
]
ODD_VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1e308,
    -(2**63),
    2**64,
    "",
    "\x00",
    "🙂" * 9,
    [],
    {},
    [[]],
    [None],
    {"a": {}},
]


@pytest.fixture(scope="module")
def document(served):
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")

    @schema.hook
    def map_body(context: Any, body: Any) -> Any:
        """Most bodies should get past the model's name, and none should generate for long."""
        if isinstance(body, dict) and "model" in body:
            body = {**body, "model": MODEL}
            for name in ("max_tokens", "max_completion_tokens"):
                if isinstance(body.get(name), int):
                    body[name] = min(body[name], 4)
        return body

    return schema


@pytest.mark.slow
def test_requests_made_from_the_openapi_document(served, document) -> None:
    for result in document.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(RELAXED, max_examples=150)
        def ask(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        ask()
    served.assert_idle()


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += _paths(item, (*path, key))
    return found


def _replaced(value: Any, path: tuple[str | int, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copy


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
@settings(RELAXED, max_examples=250)
def test_valid_requests_with_one_value_replaced(served, data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(BODIES))
    path = data.draw(st.sampled_from(_paths(body)))
    body = _replaced(body, path, data.draw(st.sampled_from(ODD_VALUES) | JSON_VALUES))
    _post(
        served,
        data.draw(st.sampled_from(["/v1/completions", "/v1/chat/completions"])),
        json.dumps(body).encode(),
    )


@given(seed=st.integers(0, 2**32 - 1))
@settings(RELAXED, max_examples=250)
def test_bytes_flipped_cut_and_doubled(served, seed: int) -> None:
    chance = random.Random(seed)
    body = bytearray(json.dumps(chance.choice(BODIES)).encode())
    for _ in range(chance.randint(1, 8)):
        start = chance.randrange(len(body) + 1)
        end = min(len(body), start + chance.randint(0, 8))
        replacement = chance.choice(
            [b"", chance.randbytes(3), bytes(body[start:end]) * 2, b'"', b"\\ud800", b"9" * 30]
        )
        body[start:end] = replacement
    _post(served, chance.choice(["/v1/completions", "/v1/chat/completions"]), bytes(body))


@pytest.mark.parametrize("seed", range(20))
def test_bytes_that_are_hardly_http(served, seed: int) -> None:
    chance = random.Random(seed)
    request = bytearray(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
    request += b"Content-Length: 40\r\n\r\n" + json.dumps(BODIES[0]).encode()
    for _ in range(chance.randint(1, 5)):
        request[chance.randrange(len(request))] = chance.randrange(256)
    with served.connect() as connection:
        connection.settimeout(0.3)
        connection.sendall(request)
        with contextlib.suppress(TimeoutError, ConnectionError):
            assert b" 500 " not in connection.recv(1000)
    with served.http() as http:
        assert http.get("/health").status_code == 200


def _post(served, path: str, body: bytes) -> None:
    with served.http() as http:
        response = http.post(path, content=body, headers={"content-type": "application/json"})
    assert response.status_code < 500, (response.text, body)
    if response.status_code != 200:
        assert response.json()["error"]["message"]
    elif not response.text.startswith("data: "):
        assert response.json()["choices"]


def test_afterwards_every_page_is_free(served) -> None:
    served.assert_idle()
    assert served.engine.is_alive
