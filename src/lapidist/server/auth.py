"""The API key."""

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from lapidist.server.errors import ApiError

OPEN_PATHS = frozenset({"/health"})
"""Probes of load balancers carry no key. Everything else needs one, /metrics included."""


class ApiKeyMiddleware:
    """Lets in requests that carry ``Authorization: Bearer <key>``; before their bodies are read."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._admits(scope):
            await self._app(scope, receive, send)
            return
        error = ApiError(
            401,
            "the API key is missing or wrong: send it as Authorization: Bearer <key>",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
        await error.response()(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = given.partition(b" ")
        # The comparison takes the same time wherever the first wrong byte is.
        return scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key)
