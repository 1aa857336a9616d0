"""Errors the engine raises for its callers; the server maps each one to an HTTP status."""


class InvalidRequestError(ValueError):
    """The request can never be served as it stands (HTTP 400). The message says what to change."""


class QueueFullError(RuntimeError):
    """The waiting queue is at its limit (HTTP 429)."""

    def __init__(self, waiting: int, limit: int, retry_after_seconds: int = 1) -> None:
        super().__init__(f"{waiting} requests are waiting and the queue holds at most {limit}; retry later")
        self.retry_after_seconds = retry_after_seconds


class EngineDeadError(RuntimeError):
    """The engine thread stopped on an error it could not contain; the process must be restarted."""
