"""From accepting requests to having finished them all."""

import asyncio
import contextlib
from collections.abc import Iterator

from starlette.types import ASGIApp, Receive, Scope, Send

from lapidist.engine.async_llm import AsyncLLM
from lapidist.server.errors import ApiError, unavailable

API_PREFIX = "/v1/"


class Lifecycle:
    """Knows the requests in flight and whether new ones are welcome."""

    def __init__(self, engine: AsyncLLM) -> None:
        self._engine = engine
        self._http_requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._engine_requests: set[str] = set()
        self._draining = False
        self._stopped = False

    def check_accepting(self) -> None:
        """Raises
        ------
        ApiError : 503, because the server is stopping or its engine has died.
        """
        if not self._engine.is_alive:
            raise unavailable("the engine has stopped on an error; the server must be restarted")
        if self._draining:
            raise unavailable("the server is shutting down and takes no new requests")

    @contextlib.contextmanager
    def http_request(self) -> Iterator[None]:
        """While an API request is being answered."""
        self._http_requests += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._http_requests -= 1
            if self._http_requests == 0:
                self._idle.set()

    @contextlib.contextmanager
    def engine_request(self, request_id: str) -> Iterator[None]:
        """While the engine generates for a request."""
        if self._stopped:
            raise aborted()
        self._engine_requests.add(request_id)
        try:
            yield
        finally:
            self._engine_requests.discard(request_id)

    async def drain(self, timeout_seconds: float) -> int:
        """Accept nothing new, let what is in flight finish, abort the rest; returns how many those were."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        self._stopped = True
        unfinished = list(self._engine_requests)
        for request_id in unfinished:
            await self._engine.abort(request_id)
        return len(unfinished)


def aborted() -> ApiError:
    """The answer to a request that was not finished when the time to drain was over."""
    return unavailable("the server shut down before this request was finished")


class DrainMiddleware:
    """Answers 503 to API requests that come after the server began to stop, or after its engine has died."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle) -> None:
        self._app = app
        self._lifecycle = lifecycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(API_PREFIX):
            await self._app(scope, receive, send)
            return
        try:
            self._lifecycle.check_accepting()
        except ApiError as error:
            await error.response()(scope, receive, send)
        else:
            with self._lifecycle.http_request():
                await self._app(scope, receive, send)
