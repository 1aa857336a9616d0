"""``/v1/chat/completions``: what comes in and what goes out."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lapidist.server.protocol.base import RequestModel
from lapidist.server.protocol.prompt_filter import PromptFilterReport
from lapidist.server.protocol.sampling import SamplingFields
from lapidist.server.protocol.usage import Usage

# -- request ------------------------------------------------------------------------------------------------


class TextPart(RequestModel):
    """A piece of a message."""

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind != "text":
            message = "is a part of type '{kind}', and this server takes text only"
            raise PydanticCustomError("text_only", message, {"kind": kind})
        return value


# Bounded because validating takes time on the event loop.
Content = str | Annotated[list[TextPart], Field(min_length=1, max_length=1024)]


class FunctionCall(RequestModel):
    name: str
    arguments: str


class ToolCall(RequestModel):
    id: str
    type: Literal["function"]
    function: FunctionCall


class SystemMessage(RequestModel):
    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(RequestModel):
    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(RequestModel):
    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None


class ToolMessage(RequestModel):
    role: Literal["tool"]
    content: Content
    tool_call_id: str


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionDefinition(RequestModel):
    """Passed to the chat template whole, so members we do not know are kept."""

    model_config = ConfigDict(extra="allow")

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(RequestModel):
    type: Literal["function"]
    function: FunctionDefinition


class ChatCompletionRequest(SamplingFields):
    """A conversation to continue."""

    messages: list[Message] = Field(min_length=1, max_length=8192)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1)
    max_tokens: int | None = Field(
        None, ge=1, le=2**31 - 1, description="Older name of max_completion_tokens."
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, description="Needs logprobs.")
    tools: list[Tool] | None = Field(None, description="Shown to the model by its chat template.")
    tool_choice: Literal["none", "auto"] | None = Field(
        None, description="auto shows the tools to the model; a call it makes comes back as text."
    )
    modalities: list[Literal["text"]] | None = None
    functions: Any = Field(None, description="Replaced by tools in the OpenAI API; refused.", deprecated=True)
    function_call: Any = Field(
        None, description="Replaced by tool_choice in the OpenAI API; refused.", deprecated=True
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Further variables for the chat template, like enable_thinking."
    )

    @field_validator("functions", "function_call")
    @classmethod
    def _replaced(cls, value: Any) -> Any:
        if value is not None:
            raise PydanticCustomError(
                "replaced", "has been replaced in the OpenAI API: use tools and tool_choice"
            )
        return value


# -- response -----------------------------------------------------------------------------------------------


class AlternativeToken(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(AlternativeToken):
    """A generated token; ``bytes`` are its own, which may be part of a character."""

    top_logprobs: list[AlternativeToken]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """The answer to a chat completion request that does not stream."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    prompt_filter: PromptFilterReport | None = Field(None, description="Only if the prompt was filtered.")
