"""What a replay can be sent to."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lapidist.evaluation.serving.prompts import Prompt


class RequestFailedError(Exception):
    """The request was refused or broke off; the message is short and the same for the same cause."""


@dataclass(frozen=True)
class Completed:
    """Token counts of a finished request; ``prompt_tokens`` is None when the server did not tell."""

    prompt_tokens: int | None
    output_tokens: int


class Target(Protocol):
    """A server, in this process or elsewhere, that completes prompts."""

    async def prepare(self) -> None:
        """Warm up, and find out what the server can do.

        Raises
        ------
        ValueError : it cannot be used; the message says why.
        """

    async def complete(self, prompt: Prompt, output_tokens: int, on_chunk: Callable[[], None]) -> Completed:
        """Generate ``output_tokens`` tokens and call ``on_chunk`` whenever some arrive.

        Raises
        ------
        RequestFailedError : it could not be served.
        """
