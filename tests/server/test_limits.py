"""The operator's limits: sizes, times, names, keys, origins, the queue."""

import contextlib
import json
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from lapidist.server.settings import ServerSettings

KEY = "sk-secret"
COMPLETION = {"model": "first", "prompt": "the cat", "max_tokens": 2}
HEAD = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
LASTING = {"model": "random-llama", "prompt": "the cat", "max_tokens": 60_000, "ignore_eos": True}


@pytest.fixture(scope="module")
def strict(start) -> Iterator:
    settings = ServerSettings(
        served_model_names=("first", "org/second"),
        api_key=KEY,
        allowed_origins=("https://app.example",),
        max_body_bytes=10_000,
        request_timeout_seconds=1,
        max_prompt_tokens=50,
        max_completion_tokens=20,
    )
    with start(settings) as served:
        yield served
        served.assert_idle()


@pytest.fixture
def http(strict) -> Iterator[httpx.Client]:
    with strict.http(headers={"authorization": f"Bearer {KEY}"}) as http:
        yield http


def test_client_with_the_right_and_the_wrong_key(strict) -> None:
    assert strict.openai_sync(KEY).completions.create(model="first", prompt="a").choices
    for wrong in ("sk-secre", "sk-secret2", "SK-SECRET", "x" * 10_000):
        with pytest.raises(openai.AuthenticationError) as caught:
            strict.openai_sync(wrong).completions.create(model="first", prompt="a")
        assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    "header", [None, b"", b"Bearer", KEY.encode(), b"Basic " + KEY.encode(), b"Bearer \xff\xfe"]
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/version", "/openapi.json", "/nothing"])
def test_everything_but_health_needs_the_key(strict, header: bytes | None, path: str) -> None:
    headers = {} if header is None else {"authorization": header}
    with strict.http(headers=headers) as http:
        response = http.get(path)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert http.get("/health").status_code == 200


def test_the_scheme_is_not_case_sensitive(strict) -> None:
    with strict.http(headers={"authorization": f"bearer {KEY}"}) as http:
        assert http.get("/v1/models").status_code == 200


def test_all_names_are_served_and_shown(http) -> None:
    assert [model["id"] for model in http.get("/v1/models").json()["data"]] == ["first", "org/second"]
    assert http.get("/v1/models/org/second").json()["id"] == "org/second"
    answer = http.post("/v1/completions", json={**COMPLETION, "model": "org/second"})
    assert answer.json()["model"] == "org/second"
    assert http.post("/v1/completions", json={**COMPLETION, "model": "random-llama"}).status_code == 404


def test_prompt_and_completion_lengths(http) -> None:
    assert http.post("/v1/completions", json={**COMPLETION, "prompt": [5] * 50}).status_code == 200
    refused = http.post("/v1/completions", json={**COMPLETION, "prompt": [5] * 51})
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    refused = http.post("/v1/completions", json={**COMPLETION, "max_tokens": 21})
    assert refused.json()["error"]["param"] == "max_tokens"
    chat = {"model": "first", "messages": [{"role": "user", "content": "a"}], "ignore_eos": True}
    assert http.post("/v1/chat/completions", json=chat).json()["usage"]["completion_tokens"] == 20


def test_large_body(http) -> None:
    response = http.post("/v1/completions", json={**COMPLETION, "user": "x" * 10_000})
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


def test_very_large_body_gets_its_answer_too(http) -> None:
    response = http.post("/v1/completions", json={**COMPLETION, "user": "x" * 30_000_000})
    assert response.status_code == 413


def test_large_chunked_body(http) -> None:
    def chunks() -> Iterator[bytes]:
        yield json.dumps(COMPLETION).encode()
        for _ in range(200):
            yield b" " * 1000

    headers = {"content-type": "application/json"}
    assert http.post("/v1/completions", content=chunks(), headers=headers).status_code == 413


def test_a_body_that_declares_too_much_is_not_waited_for(strict) -> None:
    with strict.connect() as connection:
        connection.sendall(f"{HEAD}Content-Length: 99999999\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come(strict) -> None:
    with strict.connect() as connection:
        connection.sendall(f'{HEAD}Content-Length: 100\r\n\r\n{{"model"'.encode())
        answer = b""
        while piece := connection.recv(1000):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 408")


def test_a_head_that_drips(strict) -> None:
    with strict.connect() as connection:
        closed = False
        for byte in b"GET /health HTTP/1.1\r\nX-Long: " + b"x" * 1000:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                closed = True
                break
            time.sleep(0.01)
        assert closed or connection.recv(10) == b""


def test_a_stream_may_last_longer_than_the_request_timeout(start) -> None:
    with start(ServerSettings(request_timeout_seconds=0.2)) as served, served.http() as http:
        begin = time.monotonic()
        with http.stream("POST", "/v1/completions", json={**LASTING, "stream": True}) as response:
            for _ in response.iter_lines():
                if time.monotonic() - begin > 0.6:
                    break
            else:
                pytest.fail("the stream ended early")
        served.assert_idle()


def test_cors_is_for_the_named_origins(http, served) -> None:
    preflight = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    allowed = http.options("/v1/completions", headers=preflight)
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert http.options("/v1/completions", headers={**preflight, "origin": "https://x"}).status_code == 400
    with served.http() as closed:
        assert "access-control-allow-origin" not in closed.get("/health", headers=preflight).headers


def test_a_full_queue_is_answered_with_429(start) -> None:
    with (
        start(max_num_seqs=1, max_queue=2) as served,
        contextlib.ExitStack() as lasting,
        served.http() as http,
    ):
        for _ in range(3):
            lasting.enter_context(served.send("/v1/completions", LASTING))
        served.wait_until(lambda stats: stats.running + stats.waiting == 3, "a full queue")
        for stream in (False, True):
            response = http.post("/v1/completions", json={**LASTING, "stream": stream})
            assert response.status_code == 429
            assert int(response.headers["retry-after"]) >= 1
            assert response.json()["error"]["code"] == "rate_limit_exceeded"
        with pytest.raises(openai.RateLimitError):
            served.openai_sync().completions.create(model="random-llama", prompt=["a", "b", "c"])
        assert http.get("/health").status_code == 200
        lasting.close()
        served.assert_idle()
        assert http.post("/v1/completions", json={**LASTING, "max_tokens": 2}).status_code == 200
