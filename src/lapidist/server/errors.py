"""Every error a client can get, in the OpenAI API's shape."""

from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from lapidist.engine.errors import EngineDeadError, InvalidRequestError, QueueFullError
from lapidist.models.errors import ChatTemplateError
from lapidist.server.validation_message import describe_validation_errors


class ErrorBody(BaseModel):
    """``param`` is the path of the request field at fault, ``code`` a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    error: ErrorBody


class ApiError(HTTPException):
    """An answer with an error status. The message goes to the client as it is."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(self.status_code) or (
            "server_error" if self.status_code >= 500 else "invalid_request_error"
        )
        return {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        return Response(to_json(self.body()), self.status_code, dict(self.headers or {}), "application/json")


def unavailable(message: str, retry_after_seconds: int = 5) -> ApiError:
    return ApiError(
        503, message, code="service_unavailable", headers={"Retry-After": str(retry_after_seconds)}
    )


def as_api_error(error: Exception) -> ApiError:
    """What the client hears of an exception. One that nobody foresaw is described in the log only."""
    match error:
        case ApiError():
            return error
        case RequestValidationError():
            message, param = describe_validation_errors(error.errors(), error.body)
            return ApiError(400, message, param=param)
        case InvalidRequestError() | ChatTemplateError():
            return ApiError(400, str(error))
        case QueueFullError():
            headers = {"Retry-After": str(error.retry_after_seconds)}
            return ApiError(429, str(error), code="rate_limit_exceeded", headers=headers)
        case EngineDeadError():
            return unavailable(str(error))
        case HTTPException():
            return ApiError(error.status_code, _sentence(error), headers=dict(error.headers or {}))
        case _:
            return ApiError(500, "the server failed on this request; its log says why", code="internal_error")


def _sentence(error: HTTPException) -> str:
    match error.status_code:
        case 404:
            return "there is nothing at this address; the API is below /v1"
        case 405:
            return f"this address takes {(error.headers or {}).get('Allow', 'other methods')} only"
        case _:
            return str(error.detail)


_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
