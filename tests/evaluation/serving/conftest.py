"""A small OpenAI-compatible server, to test the client over real HTTP and against bad manners."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse


@dataclass
class Peer:
    """Answers every prompt with the wanted number of tokens; the switches are its bad manners."""

    url: str = ""
    pause_seconds: float = 0.002
    knows_ignore_eos: bool = True
    tells_usage: bool = True
    api_key: str | None = None
    refuse_every: int = 0
    break_off: bool = False
    error_in_stream: bool = False
    nonsense: bool = False
    empty: bool = False
    models: list[str] = field(default_factory=lambda: ["peer"])
    bodies: list[dict[str, Any]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    disconnected: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"data": [{"id": name} for name in self.models]}

        @app.post("/v1/completions")
        async def completions(request: Request) -> Response:
            body = await request.json()
            self.bodies.append(body)
            if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
                return JSONResponse({"error": {"message": "wrong key"}}, 401)
            if "ignore_eos" in body and not self.knows_ignore_eos:
                return JSONResponse({"error": {"message": "unknown field ignore_eos"}}, 400)
            if self.refuse_every and len(self.bodies) % self.refuse_every == 0:
                return JSONResponse({"error": {"message": "the queue is full"}}, 429)
            return StreamingResponse(self.stream(body), media_type="text/event-stream")

        return app

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            async for event in self.events(body):
                yield event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n"
        except asyncio.CancelledError:
            self.disconnected += 1
            raise
        finally:
            self.running -= 1

    async def events(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any] | str]:
        tokens = body["max_tokens"]
        for number in range(0 if self.empty else tokens):
            await asyncio.sleep(self.pause_seconds)
            if self.nonsense and number == 1:
                yield "data: {not json}\n\n"
            if self.error_in_stream and number == 1:
                yield {"error": {"message": "out of  memory\n"}}
            if self.break_off and number == 1:
                return
            yield {"choices": [{"text": "a", "finish_reason": "length" if number == tokens - 1 else None}]}
        if self.tells_usage:
            prompt_tokens = (
                len(body["prompt"]) if isinstance(body["prompt"], list) else len(body["prompt"].split())
            )
            yield {"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}}
        yield ": a comment\n\n"
        yield "data: [DONE]\n\n"


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A running :class:`Peer` on a free port of the loopback interface."""
    peer = Peer()
    server = uvicorn.Server(uvicorn.Config(peer.app(), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    peer.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield peer
    server.should_exit = True
    thread.join()
