"""What happened to each HTTP request: an id for the client, a count for /metrics, a line for the log."""

import logging
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lapidist.server.metrics import Metrics

logger = logging.getLogger(__name__)

CLIENT_LEFT = 499
"""The status (nginx's) under which a request counts whose client left before the answer was complete."""

# Clients choose what they ask for; they must not choose how many time series there are.
_COUNTED_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics"})


class RequestLogMiddleware:
    """Puts ``X-Request-Id`` on every response, and counts and logs every request. Outermost."""

    def __init__(self, app: ASGIApp, metrics: Metrics, log_requests: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        request_id = uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        status, complete = 500, False

        async def watch(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            else:
                complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, watch)
            status = status if complete else CLIENT_LEFT
        finally:
            path = scope["path"] if scope["path"] in _COUNTED_PATHS else "other"
            self._metrics.observe_http_request(path, status)
            if self._log_requests:
                seconds = time.monotonic() - start
                logger.info("%s %s %r %d %.3fs", request_id, scope["method"], scope["path"], status, seconds)
