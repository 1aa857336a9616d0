"""What the endpoints of one server share."""

import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from starlette.requests import Request

from lapidist.engine.async_llm import AsyncLLM
from lapidist.engine.outputs import RequestOutput
from lapidist.server.generation import Generator
from lapidist.server.lifecycle import Lifecycle
from lapidist.server.metrics import Metrics
from lapidist.server.protocol.usage import PromptTokensDetails, Usage
from lapidist.server.settings import ServerSettings

VERSION = version("lapidist")


@dataclass(frozen=True)
class Serving:
    """One model, served under ``names``. ``created`` is the time of the start, in seconds since 1970."""

    engine: AsyncLLM
    settings: ServerSettings
    names: tuple[str, ...]
    lifecycle: Lifecycle
    metrics: Metrics
    generator: Generator
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, request: Request) -> "Serving":
        """The one that the request was sent to."""
        serving: Serving = request.app.state.serving
        return serving


@dataclass(frozen=True)
class Answer:
    """What every object of one answer says about itself."""

    id: str
    model: str
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def to(cls, request: Request, prefix: str, model: str) -> "Answer":
        return cls(f"{prefix}-{request.state.request_id}", model)

    def header(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"lapidist-{VERSION}",
        }


def count_usage(outputs: list[RequestOutput]) -> Usage:
    """Token counts over all prompts; a prompt counts once, however many completions it has."""
    prompt_tokens = sum(len(output.prompt_token_ids) for output in outputs)
    completion_tokens = sum(len(completion.token_ids) for output in outputs for completion in output.outputs)
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=sum(output.num_cached_tokens for output in outputs)
        ),
    )
