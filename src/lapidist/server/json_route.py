"""Reading a JSON body: strictly, and with an answer of our own for each way in which it can be broken."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from lapidist.server.errors import ApiError


class _JsonRequest(Request):
    async def json(self) -> Any:
        """The body as Python objects.

        pydantic's parser, unlike the standard library's, limits nesting and the length of numbers, and
        refuses NaN, invalid UTF-8 and unpaired surrogates. Of a key given twice the last one counts.
        """
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise ApiError(400, f"the request body is not valid JSON: {error}", code="invalid_json") from None


class JsonRoute(APIRoute):
    """A route whose POST bodies are JSON and nothing else."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle_json(request: Request) -> Response:
            # Without this check any web page could post to a server on localhost without the browser asking.
            content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            if takes_body and content_type != "application/json":
                raise ApiError(
                    415, "send the request as JSON, with the header Content-Type: application/json"
                )
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json
