"""From the request's words to token ids."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import from_json

from lapidist.engine.async_llm import AsyncLLM
from lapidist.server.errors import ApiError
from lapidist.server.protocol.chat import ChatCompletionRequest, Message
from lapidist.server.protocol.completions import CompletionRequest
from lapidist.server.settings import ServerSettings

_T = TypeVar("_T")

# A shorter request is dealt with faster than a thread is found for it; a longer one would hold up every stream.
_INLINE_BYTES = 8192
_RESERVED_VARIABLES = frozenset({"self", "messages", "tools"})


@dataclass(frozen=True)
class PromptTokens:
    """``text`` is what the ids were made of; for ids from the client it is what they mean (with ``echo``)."""

    token_ids: list[int]
    text: str


async def chat_prompt(
    engine: AsyncLLM, settings: ServerSettings, request: ChatCompletionRequest, body_bytes: int
) -> PromptTokens:
    """The conversation as the checkpoint's chat template writes it. ``body_bytes`` is the request's size.

    Raises
    ------
    ApiError : it is too long, or ``chat_template_kwargs`` names something that is not the client's to set.
    ChatTemplateError : the template refuses the conversation.
    """
    variables = request.chat_template_kwargs or {}
    if reserved := variables.keys() & _RESERVED_VARIABLES:
        message = f"chat_template_kwargs must not contain {min(reserved)!r}"
        raise ApiError(400, message, param="chat_template_kwargs")
    if request.tools and request.tool_choice != "none":
        variables = variables | {"tools": [tool.model_dump(exclude_unset=True) for tool in request.tools]}

    def render() -> PromptTokens:
        messages = [_as_template_reads(message) for message in request.messages]
        text = engine.tokenizer.apply_chat_template(messages, **variables)
        # The template has written the special tokens itself.
        return PromptTokens(engine.tokenizer.encode(text, add_special_tokens=False), text)

    prompt = await _run(render, body_bytes)
    _check_length(prompt.token_ids, engine, settings, "messages", request.prompt_filter is not None)
    return prompt


async def completion_prompts(
    engine: AsyncLLM, settings: ServerSettings, request: CompletionRequest, body_bytes: int
) -> list[PromptTokens]:
    """One prompt per text or list of token ids. ``body_bytes`` is the request's size.

    Raises
    ------
    ApiError : one is empty or too long.
    """

    def encode() -> list[PromptTokens]:
        return [_encode(engine, piece, bool(request.echo)) for piece in request.prompts]

    prompts = await _run(encode, body_bytes)
    for index, prompt in enumerate(prompts):
        param = f"prompt[{index}]" if request.several else "prompt"
        _check_length(prompt.token_ids, engine, settings, param, request.prompt_filter is not None)
    return prompts


def _encode(engine: AsyncLLM, piece: str | list[int], needs_text: bool) -> PromptTokens:
    if isinstance(piece, str):
        return PromptTokens(engine.tokenizer.encode(piece), piece)
    return PromptTokens(
        piece, engine.tokenizer.decode(piece, skip_special_tokens=False) if needs_text else ""
    )


def _as_template_reads(message: Message) -> dict[str, Any]:
    """The message as chat templates expect it: without developers, and with tool arguments as objects."""
    plain = message.model_dump(exclude_none=True)
    if plain["role"] == "developer":
        plain["role"] = "system"
    for index, call in enumerate(plain.get("tool_calls", ())):
        try:
            call["function"]["arguments"] = from_json(call["function"]["arguments"])
        except ValueError:
            param = f"tool_calls[{index}].function.arguments"
            raise ApiError(
                400, f"{param} of an assistant message should be JSON in a string", param=param
            ) from None
    return plain


def _check_length(
    token_ids: list[int], engine: AsyncLLM, settings: ServerSettings, param: str, is_filtered: bool
) -> None:
    if not token_ids:
        raise ApiError(400, f"{param} is empty: there must be at least one token to go on from", param=param)
    # One token of the context is left for the answer; the engine knows what a filter leaves of the prompt.
    longest = engine.max_context if is_filtered else engine.max_model_len - 1
    limit = min(longest, settings.max_prompt_tokens or longest)
    if len(token_ids) > limit:
        raise ApiError(
            400,
            f"{param} has {len(token_ids)} tokens, and this server takes {limit} at most "
            f"(the context is {engine.max_model_len} tokens, prompt and answer together)",
            param=param,
            code="context_length_exceeded",
        )


async def _run(work: Callable[[], _T], body_bytes: int) -> _T:
    return work() if body_bytes <= _INLINE_BYTES else await asyncio.to_thread(work)
