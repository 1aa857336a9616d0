"""Conversations to prompts: a checkpoint's Jinja chat template, rendered as `transformers` renders it."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from lapidist.models.errors import ChatTemplateError

# The template is the checkpoint author's, the messages are the client's: these bound what a client can make a
# template do (some templates take time quadratic in the number of messages).
MAX_RENDERED_CHARACTERS = 16_000_000
MAX_RENDER_SECONDS = 10.0
MAX_NESTING = 100

_PROBE = "lapidist-probe"
_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


class ChatTemplate:
    """One Jinja chat template.

    Parameters
    ----------
    source : the template, compiled at its first use: a broken one does not keep the model from loading.
    special_tokens : names like ``bos_token`` that the template writes out.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        self._source = source
        self._special_tokens = dict(special_tokens or {})

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The conversation as text.

        A message's ``content`` is a string or a list of parts. Text parts are joined by newlines for a
        template that reads only strings; a string is wrapped into a part for one that reads only parts.

        Parameters
        ----------
        messages : plain JSON objects with at least a ``role``; keys whose value is None count as absent.
        tools : JSON schemas of functions.
        variables : further names that the template sees (``documents``, ``enable_thinking``, ...).

        Raises
        ------
        ChatTemplateError : the template is broken, or refuses the conversation.
        """
        if not messages:
            raise ChatTemplateError("messages is empty: a conversation needs at least one message")
        conversation = [self._prepare(message, index) for index, message in enumerate(messages)]
        names = {**(variables or {}), "tools": tools, "add_generation_prompt": add_generation_prompt}
        return self._render(conversation, names)

    def _prepare(self, message: Mapping[str, Any], index: int) -> dict[str, Any]:
        """A copy of the message in the form that the template reads."""
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ChatTemplateError(f"messages[{index}] must be an object with a string 'role'")
        prepared = {key: value for key, value in message.items() if value is not None}
        reasoning = next((prepared[name] for name in _REASONING_FIELDS if name in prepared), None)
        if reasoning is not None:
            prepared = {"thinking": reasoning, **prepared, "reasoning_content": reasoning}
        content = prepared.get("content", "")
        if isinstance(content, list):
            if not self._reads_parts:
                prepared["content"] = _join_text_parts(content, f"messages[{index}].content")
        elif not isinstance(content, str):
            raise ChatTemplateError(f"messages[{index}].content must be a string or a list of content parts")
        elif "content" in prepared and not self._reads_strings:
            prepared["content"] = [{"type": "text", "text": content}]
        return prepared

    @cached_property
    def _reads_strings(self) -> bool:
        return self._probe(_PROBE) is not None or not self._reads_parts

    @cached_property
    def _reads_parts(self) -> bool:
        """Whether a list with one text part renders, and to the same as the text alone."""
        from_parts = self._probe([{"type": "text", "text": _PROBE}])
        from_string = self._probe(_PROBE)
        return from_parts is not None and from_string in (None, from_parts)

    def _probe(self, content: Any) -> str | None:
        """What a one-message conversation renders to, if that has the text in it."""
        try:
            rendered = self._render([{"role": "user", "content": content}], {})
        except ChatTemplateError:
            return None
        return rendered if _PROBE in rendered else None

    def _render(self, conversation: list[dict[str, Any]], names: Mapping[str, Any]) -> str:
        known = {
            "tools": None,
            "documents": None,
            "add_generation_prompt": False,
            **self._special_tokens,
            **names,
            "messages": conversation,
        }
        plain = {name: _plain(value, name) for name, value in known.items()}
        deadline = time.monotonic() + MAX_RENDER_SECONDS
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._compiled.generate(plain):
                pieces.append(piece)
                length += len(piece)
                if length > MAX_RENDERED_CHARACTERS or time.monotonic() > deadline:
                    raise ChatTemplateError("the conversation is too long for the model's chat template")
        except ChatTemplateError:
            raise
        except _Refusal as error:
            raise ChatTemplateError(
                f"the chat template refuses the conversation: {_one_line(error)}"
            ) from None
        except Exception as error:  # a template can raise whatever its expressions raise
            raise ChatTemplateError(
                f"the chat template fails on the conversation: {_one_line(error)}"
            ) from error
        return "".join(pieces)

    @cached_property
    def _compiled(self) -> jinja2.Template:
        try:
            return _ENVIRONMENT.from_string(self._source)
        except jinja2.TemplateError as error:
            raise ChatTemplateError(f"the chat template is not valid Jinja: {error.message}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _join_text_parts(parts: list[Any], where: str) -> str:
    texts = []
    for index, part in enumerate(parts):
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise ChatTemplateError(f"{where}[{index}] is not a text part, and this model reads text alone")
        texts.append(text)
    return "\n".join(texts)


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """A copy made of plain JSON types: a template must not reach any method of another object."""
    if depth > MAX_NESTING:
        raise ChatTemplateError(f"{where} is nested more than {MAX_NESTING} levels deep")
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {_plain(key, where, depth + 1): _plain(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where, depth + 1) for item in value]
    raise ChatTemplateError(f"{where} holds a {type(value).__name__}, which is not a JSON value")


# -- the names that chat templates rely on -----------------------------------------------------------------


class _Refusal(jinja2.TemplateError):
    """Raised by a template about a conversation that it cannot express."""


def _raise_exception(message: str) -> None:
    raise _Refusal(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML characters, which would change prompts.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


class _GenerationBlock(jinja2.ext.Extension):
    """``{% generation %}...{% endgeneration %}`` marks the assistant's words for training; no effect here."""

    tags = {"generation"}  # noqa: RUF012 (the attribute's type is fixed by Jinja)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> str:
        return str(caller())


def _chat_environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


_ENVIRONMENT = _chat_environment()
