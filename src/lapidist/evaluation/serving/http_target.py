"""Replay against any OpenAI-compatible server."""

import json
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import httpx

from lapidist.evaluation.serving.prompts import Prompt
from lapidist.evaluation.serving.target import Completed, RequestFailedError

_CONNECT_SECONDS = 10.0
_MESSAGE_CHARACTERS = 200


class HttpTarget:
    """Greedy streamed completions by ``/v1/completions``; use it as an asynchronous context manager.

    Parameters
    ----------
    url : of the server, with or without ``/v1``.
    model : the name to ask for; None takes the first that ``/v1/models`` lists.
    api_key : sent as a bearer token.
    """

    def __init__(self, url: str, model: str | None = None, api_key: str | None = None) -> None:
        self.model = model
        self.ignores_end_of_text = True
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/").removesuffix("/v1") + "/v1/",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def prepare(self) -> None:
        """Find the model's name, and whether the server takes ``ignore_eos`` (an extension that vLLM began).

        Raises
        ------
        ValueError : the server cannot be reached, lists no model, or cannot complete a prompt.
        """
        try:
            self.model = self.model or await self._first_model()
            try:
                await self.complete("Hello", 1, lambda: None)
            except RequestFailedError as error:
                if not str(error).startswith(("400", "422")):
                    raise
                self.ignores_end_of_text = False
                await self.complete("Hello", 1, lambda: None)
        except RequestFailedError as error:
            raise ValueError(f"{self._client.base_url}: {error}") from None

    async def complete(self, prompt: Prompt, output_tokens: int, on_chunk: Callable[[], None]) -> Completed:
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.ignores_end_of_text:
            body["ignore_eos"] = True
        usage: dict[str, Any] = {}
        chunks = 0
        async for event in self._events(body):
            if any(
                choice.get("text") or not choice.get("finish_reason") for choice in event.get("choices") or []
            ):
                chunks += 1
                on_chunk()
            usage = event.get("usage") or usage
        return Completed(usage.get("prompt_tokens"), usage.get("completion_tokens", chunks))

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The JSON objects of a server-sent event stream."""
        try:
            async with self._client.stream("POST", "completions", json=body) as response:
                await _check(response)
                async for line in response.aiter_lines():
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    if line.startswith("data:"):
                        yield _event(data)
        except httpx.HTTPError as error:
            raise RequestFailedError(_describe(error)) from error
        raise RequestFailedError("the stream ended without [DONE]")

    async def _first_model(self) -> str:
        try:
            response = await self._client.get("models")
            await _check(response)
            return str(response.json()["data"][0]["id"])
        except httpx.HTTPError as error:
            raise RequestFailedError(_describe(error)) from error
        except (ValueError, LookupError, TypeError):
            raise RequestFailedError("GET models lists no model; name one") from None


def _event(data: str) -> dict[str, Any]:
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise RequestFailedError(f"the stream holds no JSON object: {data[:_MESSAGE_CHARACTERS]}")
    if error := event.get("error"):
        raise RequestFailedError(_message(error))
    return event


async def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    text = (await response.aread()).decode(errors="replace")
    try:
        text = _message(json.loads(text)["error"])
    except (ValueError, LookupError, TypeError):
        text = text[:_MESSAGE_CHARACTERS]
    raise RequestFailedError(f"{response.status_code} {text}".strip())


def _message(error: object) -> str:
    text = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(text).split())[:_MESSAGE_CHARACTERS]


def _describe(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
