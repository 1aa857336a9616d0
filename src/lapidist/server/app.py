"""The web application: endpoints, and what every request passes through on its way to them."""

from typing import Any

from fastapi import FastAPI, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from lapidist.engine.async_llm import AsyncLLM
from lapidist.engine.errors import EngineDeadError, InvalidRequestError, QueueFullError
from lapidist.models.errors import ChatTemplateError
from lapidist.server import chat, completions, operations
from lapidist.server.auth import ApiKeyMiddleware
from lapidist.server.body_limit import BodyLimitMiddleware
from lapidist.server.errors import ErrorResponse, as_api_error
from lapidist.server.generation import ClientLeftError, Generator
from lapidist.server.lifecycle import DrainMiddleware, Lifecycle
from lapidist.server.limits import served_names
from lapidist.server.metrics import Metrics
from lapidist.server.request_log import CLIENT_LEFT, RequestLogMiddleware
from lapidist.server.serving import VERSION, Serving
from lapidist.server.settings import ServerSettings

_ERRORS = (
    HTTPException,
    RequestValidationError,
    InvalidRequestError,
    ChatTemplateError,
    QueueFullError,
    EngineDeadError,
    Exception,
)


def create_app(engine: AsyncLLM, settings: ServerSettings) -> FastAPI:
    """The OpenAI-compatible API of one engine, as an ASGI application."""
    lifecycle, metrics = Lifecycle(engine), Metrics(engine)
    documented: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": description}
        for status, description in (("4XX", "The request is at fault."), ("5XX", "The server is."))
    }
    app = FastAPI(
        title="Lapidist",
        version=VERSION,
        # These pages load scripts from the internet; the OpenAPI document at /openapi.json does not.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=documented,
        middleware=_middleware(settings, lifecycle, metrics),
        # The middleware is the lock; this is the sign on the door.
        dependencies=[Security(HTTPBearer(auto_error=False))] if settings.api_key is not None else [],
    )
    app.state.serving = Serving(
        engine,
        settings,
        served_names(engine, settings),
        lifecycle,
        metrics,
        Generator(engine, lifecycle, metrics),
    )
    for error in _ERRORS:
        app.add_exception_handler(error, _answer_error)
    app.add_exception_handler(ClientLeftError, _answer_nobody)
    for router in (chat.router, completions.router, operations.router):
        app.include_router(router)
    return app


def _middleware(settings: ServerSettings, lifecycle: Lifecycle, metrics: Metrics) -> list[Middleware]:
    """Outermost first: who is not let in need not send a body, and what is counted is counted whole."""
    layers = [Middleware(RequestLogMiddleware, metrics=metrics, log_requests=settings.log_requests)]
    if settings.allowed_origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.allowed_origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=["X-Request-Id", "Retry-After"],
            )
        )
    if settings.api_key is not None:
        layers.append(Middleware(ApiKeyMiddleware, api_key=settings.api_key))
    layers.append(
        Middleware(
            BodyLimitMiddleware,
            max_bytes=settings.max_body_bytes,
            timeout_seconds=settings.request_timeout_seconds,
        )
    )
    layers.append(Middleware(DrainMiddleware, lifecycle=lifecycle))
    return layers


async def _answer_error(request: Request, error: Exception) -> Response:
    return as_api_error(error).response()


async def _answer_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)
