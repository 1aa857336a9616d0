"""The process from start to exit: ready line, port in use, signals, draining."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lapidist.engine.errors import EngineDeadError
from lapidist.server.settings import ServerSettings

LASTING = {"model": "random-llama", "prompt": "the cat", "ignore_eos": True, "stream": True}


@contextlib.contextmanager
def process(model: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``lapidist serve`` as a process of its own, and its URL."""
    command = [sys.executable, "-m", "lapidist.cli.main", "serve", str(model), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            ready = server.stdout.readline()
            found = re.fullmatch(r"ready on (http://127\.0\.0\.1:[1-9]\d*)\n", ready)
            assert found, ready + server.stderr.read()
            yield server, found.group(1)
        finally:
            server.kill()


def read_stream(response: httpx.Response) -> list[dict[str, object]]:
    lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(long_llama_directory: Path, number: int) -> None:
    with (
        process(long_llama_directory, "--dtype", "float32") as (server, url),
        httpx.Client(base_url=url) as http,
    ):
        assert http.get("/health").json() == {"status": "ok"}
        with http.stream(
            "POST", "/v1/completions", json={**LASTING, "max_tokens": 400}, timeout=60
        ) as response:
            server.send_signal(number)
            with httpx.Client(base_url=url) as late:
                while (health := late.get("/health")).status_code == 200:
                    pass
                assert health.status_code == 503
                refused = late.post("/v1/completions", json=LASTING)
                assert refused.status_code == 503
                assert refused.headers["retry-after"]
                assert refused.json()["error"]["code"] == "service_unavailable"
            events = read_stream(response)
        assert events[-1]["choices"][0]["finish_reason"] == "length"
        assert server.wait(30) == 0
        assert "Traceback" not in server.stderr.read()


def test_the_drain_has_an_end(long_llama_directory: Path) -> None:
    options = ("--dtype", "float32", "--drain-timeout-seconds", "0.5", "--log-requests")
    with process(long_llama_directory, *options) as (server, url), httpx.Client(base_url=url) as http:
        answers = []
        body = {**LASTING, "max_tokens": 60_000}
        whole = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"{url}/v1/completions", json={**body, "stream": False}, timeout=60)
            )
        )
        whole.start()
        with http.stream("POST", "/v1/completions", json=body, timeout=60) as response:
            while "lapidist_running_sequences 2.0" not in httpx.get(f"{url}/metrics").text:
                pass
            server.terminate()
            events = read_stream(response)
        whole.join()
        assert events[-1]["error"]["code"] == "service_unavailable"
        assert answers[0].status_code == 503
        assert server.wait(30) == 0
        log = server.stderr.read()
        assert "aborted 2 requests" in log
        assert "'/v1/completions' 503" in log
        assert "the cat" not in log


def test_port_in_use(long_llama_directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            "-m",
            "lapidist.cli.main",
            "serve",
            str(long_llama_directory),
            "--port",
            str(port),
        ]
        server = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert server.returncode == 1
    assert server.stderr.strip() == f"error: cannot listen on 127.0.0.1:{port}: address already in use"
    assert server.stdout == ""


def test_an_empty_key_does_not_leave_the_server_open(long_llama_directory: Path) -> None:
    command = [sys.executable, "-m", "lapidist.cli.main", "serve", str(long_llama_directory), "--port", "0"]
    environment = {**os.environ, "LAPIDIST_API_KEY": ""}
    server = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert server.returncode != 0
    assert "the API key must be" in server.stderr
    assert "Traceback" not in server.stderr


def test_a_dead_engine_is_reported(start) -> None:
    with start() as served, served.http() as http:
        with served.send("/v1/completions", {**LASTING, "max_tokens": 60_000, "stream": False}) as waiting:
            served.wait_until(lambda stats: stats.running == 1, "a running request")
            served.engine.shutdown()
            assert waiting.recv(100).startswith(b"HTTP/1.1 503")
        assert http.get("/health").status_code == 503
        assert http.get("/v1/models").status_code == 503
        assert http.get("/metrics").status_code == 200
        with pytest.raises(EngineDeadError):
            served.engine._check_accepting()


def test_no_connection_is_left_waiting_at_the_end(start) -> None:
    with start(ServerSettings(drain_timeout_seconds=0)) as served:
        idle = served.connect()
        partial = served.connect()
        partial.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    with idle, partial:
        assert idle.recv(10) == b""
