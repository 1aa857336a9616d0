"""Server-sent events, as the official clients read them."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from pydantic_core import to_json
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from lapidist.server.errors import as_api_error
from lapidist.server.generation import ClientLeftError, while_connected

logger = logging.getLogger(__name__)

STREAM_DOCUMENTATION: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with stream, its chunks as server-sent events.",
        "content": {"text/event-stream": {}},
    }
}
"""For the OpenAPI document: what an endpoint answers beside JSON."""

_DONE = b"data: [DONE]\n\n"


def event(payload: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + to_json(payload) + b"\n\n"


class EventStream(StreamingResponse):
    """Sends events (one or several per item of ``events``) and closes ``events`` when the client leaves.

    The status line waits for the first item: until then an error is an ordinary error response, afterwards
    it is an event.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        # The second header keeps nginx from collecting the stream before passing it on.
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Nobody is left to hear of it when the client has gone.
        with suppress(ClientLeftError):
            await while_connected(receive, self._write(send))

    async def _write(self, send: Send) -> None:
        started = False
        async with aclosing(self._events):
            try:
                async for chunk in self._events:
                    if not started:
                        await send(
                            {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                        )
                        started = True
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except Exception as error:
                if not started:
                    raise
                told = as_api_error(error)
                if told.status_code == 500:
                    logger.error("a stream failed", exc_info=error)
                await send({"type": "http.response.body", "body": event(told.body()), "more_body": True})
            await send({"type": "http.response.body", "body": _DONE, "more_body": False})
