"""Serving an application until a signal ends it."""

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from types import FrameType

import uvicorn

from lapidist.engine.async_llm import AsyncLLM
from lapidist.server.app import create_app
from lapidist.server.connection import TimedHttpProtocol
from lapidist.server.serving import Serving
from lapidist.server.settings import ServerSettings

logger = logging.getLogger(__name__)

# After the drain, clients get this long to take what has been written for them; then their connections are cut.
_CLOSE_SECONDS = 2


class HttpServer(uvicorn.Server):
    """uvicorn, except that a signal first drains the application while connections are still accepted.

    Load balancers thereby see 503 on /health, and late requests an error that says why, instead of a refused
    connection. ``run([listener])`` returns after the drain; a second signal does not wait for it.

    Parameters
    ----------
    on_ready : called when requests are accepted.
    """

    def __init__(
        self, engine: AsyncLLM, settings: ServerSettings, on_ready: Callable[[], object] = lambda: None
    ) -> None:
        app = create_app(engine, settings)
        protocol = partial(TimedHttpProtocol, settings.request_timeout_seconds)
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_CLOSE_SECONDS + 1,
            )
        )
        serving: Serving = app.state.serving
        self._lifecycle = serving.lifecycle
        self._drain_timeout_seconds = settings.drain_timeout_seconds
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().call_later(_CLOSE_SECONDS, self._cut_connections)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called on a signal. uvicorn would let it end the process; a drained server has ended well."""
        self.stop()

    def stop(self) -> None:
        """Drain and end; a second call ends at once. May be called from any thread."""
        if self._loop is None:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        logger.info("stopping: finishing the requests in flight")
        aborted = await self._lifecycle.drain(self._drain_timeout_seconds)
        if aborted:
            logger.warning("aborted %d requests that were not finished in time", aborted)
        self.should_exit = True

    def _cut_connections(self) -> None:
        for connection in self.server_state.connections:
            connection.transport.abort()
