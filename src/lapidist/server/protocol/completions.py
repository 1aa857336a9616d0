"""``/v1/completions``: what comes in and what goes out."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from lapidist.server.protocol.prompt_filter import PromptFilterReport
from lapidist.server.protocol.sampling import SamplingFields, TokenId
from lapidist.server.protocol.usage import Usage

Text = str
TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Prompts = (
    Text
    | Annotated[list[Text], Field(min_length=1, fail_fast=True)]
    | TokenIds
    | Annotated[list[TokenIds], Field(min_length=1, fail_fast=True)]
)


class CompletionRequest(SamplingFields):
    """One or several prompts to continue, each as text or as token ids."""

    prompt: Prompts
    max_tokens: int | None = Field(16, ge=0, le=2**31 - 1, description="0 only together with echo.")
    echo: bool | None = Field(None, description="Put the prompt before the generated text.")
    logprobs: int | None = Field(None, ge=0, description="Likeliest tokens to report per position.")
    best_of: int | None = Field(None, ge=1, description="Only n itself is possible.")
    suffix: str | None = Field(None, description="Refused: text is continued, not filled in.")

    @property
    def several(self) -> bool:
        return isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)

    @property
    def prompts(self) -> list[Any]:
        """Each a string or a list of token ids."""
        return list(self.prompt) if self.several else [self.prompt]


class CompletionLogprobs(BaseModel):
    """Parallel lists, an entry per token; with echo, the first prompt token has nothing that predicts it."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(BaseModel):
    """The answer to a completion request that does not stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage
    prompt_filter: list[PromptFilterReport] | None = Field(
        None, description="One for each prompt, only if prompts were filtered."
    )
