"""A real server on loopback: the engine on a small random checkpoint, behind uvicorn in a thread."""

import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
import torch

from lapidist import AsyncLLM
from lapidist.server.http_server import HttpServer
from lapidist.server.listener import bind, url_of
from lapidist.server.settings import ServerSettings
from tests.checkpoints import write_random_llama


@dataclass(frozen=True)
class Served:
    """A running server. The model is served as ``random-llama``."""

    url: str
    engine: AsyncLLM
    server: HttpServer

    def http(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def openai_sync(self, api_key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=60)

    def openai_async(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=60)

    def connect(self) -> socket.socket:
        address = urlsplit(self.url)
        return socket.create_connection((address.hostname, address.port), timeout=30)

    def send(self, path: str, body: dict[str, Any]) -> socket.socket:
        """Post a request and leave its answer to the caller."""
        content = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        connection = self.connect()
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        return connection

    def wait_until(self, condition: Callable[[Any], bool], what: str) -> None:
        """Wait until the engine's stats fulfil a condition."""
        deadline = time.monotonic() + 30
        while not condition(self.engine.stats()):
            assert time.monotonic() < deadline, f"{what} never came: {self.engine.stats()}"
            time.sleep(0.005)

    def assert_idle(self) -> None:
        """Nothing runs, nothing waits, and every page is free."""
        self.wait_until(lambda stats: not (stats.running or stats.waiting), "idleness")
        self.wait_until(lambda stats: stats.pages_used == 0, "the last free page")


Start = Callable[..., AbstractContextManager[Served]]


class _ErrorLog(logging.Handler):
    """What the server's threads log as an error; no test's requests give them a reason to."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.threadName != "MainThread":  # that is where the clients are
            self.lines.append(logging.Formatter().format(record))


@contextlib.contextmanager
def _start(model: Path, settings: ServerSettings, engine_options: dict[str, Any]) -> Iterator[Served]:
    errors = _ErrorLog()
    logging.getLogger().addHandler(errors)
    engine = AsyncLLM(model, dtype="float32", **engine_options)
    listener = bind("127.0.0.1", 0)
    ready = threading.Event()
    server = HttpServer(engine, settings, on_ready=ready.set)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert ready.wait(30)
        yield Served(url_of(listener), engine, server)
    finally:
        server.stop()
        thread.join(30)
        engine.shutdown()
        logging.getLogger().removeHandler(errors)
    assert not thread.is_alive()
    assert errors.lines == []


@pytest.fixture(scope="session")
def long_llama_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose requests can be made to last: its context takes minutes to fill."""
    torch.set_num_threads(1)
    return write_random_llama(tmp_path_factory.mktemp("long") / "random-llama", layers=1, context=65536)


@pytest.fixture(scope="session")
def start(long_llama_directory: Path) -> Start:
    """Starts a server with settings of its own and options of the engine, for as long as a ``with`` block."""

    def start_server(
        settings: ServerSettings | None = None, **engine_options: Any
    ) -> AbstractContextManager[Served]:
        options = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "kv_cache_bytes": 2**26} | engine_options
        return _start(long_llama_directory, settings or ServerSettings(), options)

    return start_server


@pytest.fixture(scope="module")
def served(llama_directory: Path) -> Iterator[Served]:
    """A server with default settings; every test must leave it with all pages free."""
    torch.set_num_threads(1)
    options = {"max_num_seqs": 8, "max_num_batched_tokens": 64}
    with _start(llama_directory, ServerSettings(), options) as served:
        yield served
        served.assert_idle()
