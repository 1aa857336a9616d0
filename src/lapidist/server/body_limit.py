"""Reads request bodies within limits of size and time."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapidist.server.errors import ApiError


class BodyLimitMiddleware:
    """Hands the application whole bodies of at most ``max_bytes`` that arrived within ``timeout_seconds``.

    Bytes are counted as they arrive: neither a chunked body nor a lying Content-Length gets around the limit.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self._timeout_seconds):
                body = await self._read(scope, receive)
        except TimeoutError:
            message = f"the request body did not arrive within {self._timeout_seconds:g} seconds"
            await ApiError(408, message, headers={"Connection": "close"}).response()(scope, receive, send)
        except ApiError as error:
            # The connection stays open: closing it on a client that is still sending would reset it before
            # the client has read the answer. The HTTP server throws the rest of the body away.
            await error.response()(scope, receive, send)
        else:
            if body is not None:
                await self._app(scope, _replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None if the client has gone."""
        # The HTTP server has checked that it is a number. "100 Continue" is sent when reading begins.
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        pieces: list[bytes] = []
        size = 0
        while int(declared) <= self._max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._max_bytes:
                break
            if not message.get("more_body", False):
                return b"".join(pieces)
        raise ApiError(
            413,
            f"the request body is larger than {self._max_bytes} bytes, which is the most this server takes",
            code="body_too_large",
        )


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives the body at once and then whatever really comes: the client's departure."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return first.pop() if first else await receive()

    return replay
