"""Prompts are those of `transformers`; refusals and accidents become one sentence."""

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.models import chat_template
from lapidist.models.chat_template import ChatTemplate
from lapidist.models.errors import ChatTemplateError
from tests.models import chat_templates
from tests.trained_tokenizers import tokenizer_directory

transformers = pytest.importorskip("transformers")
jinja2 = pytest.importorskip("jinja2")

STYLES = ("LLAMA3", "QWEN3", "MISTRAL", "GEMMA", "PHI", "PARTS_OR_TEXT", "DOCUMENTS")
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'It\'s <warm> & sunny: "ü"?',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {
    "type": "function",
    "function": {"name": "weather", "arguments": {"city": "Köln", "days": [1, 2.5, None]}},
}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one turn": [{"role": "user", "content": "  Who are you? \n"}],
    "system": [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "Hi <|eot_id|> & 'you'"},
    ],
    "turns": [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "<think>\neasy\n</think>\n\n2"},
        {"role": "user", "content": "Sure? 🦊 {{ 7 * 7 }} {% raw %}"},
    ],
    "tool call": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "rain"},
        {"role": "tool", "content": "snow"},
    ],
    "reasoning": [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because.", "reasoning": "hm"},
        {"role": "assistant", "content": "Because!", "reasoning_content": "hm hm"},
    ],
    "ends with the assistant": [{"role": "user", "content": "Go on"}, {"role": "assistant", "content": "I "}],
    "two users": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "unknown role": [{"role": "user", "content": "a"}, {"role": "critic", "content": "b"}],
}


@functools.cache
def theirs(style: str):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_directory("llama3"))
    tokenizer.chat_template = getattr(chat_templates, style)
    return tokenizer


@functools.cache
def ours(style: str) -> ChatTemplate:
    return ChatTemplate(getattr(chat_templates, style), theirs(style).special_tokens_map)


def expected(style: str, messages: list[dict[str, Any]], **options: Any) -> str | None:
    try:
        return theirs(style).apply_chat_template(messages, tokenize=False, **options)
    except jinja2.TemplateError:
        return None


def found(style: str, messages: list[dict[str, Any]], **options: Any) -> str | None:
    tools = options.pop("tools", None)
    add = options.pop("add_generation_prompt")
    try:
        return ours(style).render(messages, add_generation_prompt=add, tools=tools, variables=options)
    except ChatTemplateError:
        return None


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"add_generation_prompt": True},
        {"add_generation_prompt": False},
        {"add_generation_prompt": True, "tools": [TOOL, TOOL]},
        {
            "add_generation_prompt": True,
            "enable_thinking": False,
            "date_string": "1 May",
            "mood": ["ü", {"a": 1}],
        },
        {"add_generation_prompt": False, "documents": [{"title": "T", "text": "<x> & y"}]},
    ],
)
def test_renders_as_transformers_does(style: str, name: str, options: dict[str, Any]) -> None:
    messages = CONVERSATIONS[name]
    assert found(style, messages, **options) == expected(style, messages, **options)


def test_the_comparison_has_teeth() -> None:
    """Of the conversations some are rendered and some refused, so that the test above compares both."""
    results = [
        found(style, each, add_generation_prompt=True) for style in STYLES for each in CONVERSATIONS.values()
    ]
    assert results.count(None) >= 5
    assert len(set(results)) > len(results) // 2


MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": st.text(max_size=20)}
)


@settings(max_examples=100, deadline=None)
@given(style=st.sampled_from(STYLES), messages=st.lists(MESSAGE, min_size=1, max_size=6), add=st.booleans())
def test_renders_random_conversations_as_transformers_does(style: str, messages: list, add: bool) -> None:
    assert found(style, messages, add_generation_prompt=add) == expected(
        style, messages, add_generation_prompt=add
    )


# -- content parts -------------------------------------------------------------------------------------------

PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]


@pytest.mark.parametrize("style", ["LLAMA3", "QWEN3", "MISTRAL", "GEMMA", "PHI"])
def test_text_parts_are_joined_for_templates_that_read_strings(style: str) -> None:
    joined = ours(style).render([{"role": "user", "content": "a\nb"}])
    assert ours(style).render([{"role": "user", "content": PARTS}]) == joined


def test_parts_stay_parts_for_templates_that_read_them() -> None:
    image = {"type": "image_url", "image_url": {"url": "x"}}
    assert "ab<image>" in ours("PARTS_OR_TEXT").render([{"role": "user", "content": [*PARTS, image]}])
    assert ours("PARTS").render([{"role": "user", "content": PARTS}]) == "[user]ab"


def test_a_string_becomes_a_part_for_templates_that_read_parts_alone() -> None:
    assert ours("PARTS").render([{"role": "user", "content": "ab"}]) == "[user]ab"


@pytest.mark.parametrize(
    "content",
    [[{"type": "image_url", "image_url": {"url": "x"}}], [{"type": "text"}], ["a"], [None], 5, {"a": 1}],
)
def test_other_content_is_refused(content: Any) -> None:
    with pytest.raises(ChatTemplateError, match=r"messages\[1\].content"):
        ours("LLAMA3").render([{"role": "user", "content": "a"}, {"role": "user", "content": content}])


# -- what goes wrong -----------------------------------------------------------------------------------------


def test_a_refusal_gives_the_template_s_reason() -> None:
    with pytest.raises(ChatTemplateError, match="refuses the conversation: System role not supported"):
        ours("GEMMA").render(CONVERSATIONS["system"])


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% if %}", "not valid Jinja"),
        ("{{ messages | no_such_filter }}", "not valid Jinja"),
        ("{{ messages[0].content.missing.deeper }}", "missing"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ raise_exception('two\n lines') }}", "two lines"),
        ("{{ messages[0].content + 5 }}", "str"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% for i in range(100000000) %}{% endfor %}", "[Rr]ange"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
)
def test_accidents_of_a_template(source: str, reason: str) -> None:
    template = ChatTemplate(source)
    with pytest.raises(ChatTemplateError, match=reason) as caught:
        template.render(CONVERSATIONS["one turn"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "messages", [[], ["hi"], [{"content": "hi"}], [{"role": 5, "content": "hi"}], [None]]
)
def test_what_is_no_conversation(messages: Any) -> None:
    with pytest.raises(ChatTemplateError, match="messages"):
        ours("LLAMA3").render(messages)


def test_values_that_are_not_json() -> None:
    with pytest.raises(ChatTemplateError, match="mood"):
        ours("DOCUMENTS").render(CONVERSATIONS["one turn"], variables={"mood": object()})
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(ChatTemplateError, match="nested"):
        ours("LLAMA3").render(CONVERSATIONS["one turn"], tools=deep)


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    quadratic = ChatTemplate(
        "{% for a in messages %}{% for b in messages %}{{ b.content }}{% endfor %}{% endfor %}"
    )
    messages = [{"role": "user", "content": "x" * 100}] * 300
    assert len(quadratic.render(messages)) == 300 * 300 * 100
    monkeypatch.setattr(chat_template, "MAX_RENDERED_CHARACTERS", 1_000_000)
    with pytest.raises(ChatTemplateError, match="too long"):
        quadratic.render(messages)
    monkeypatch.setattr(chat_template, "MAX_RENDERED_CHARACTERS", 10**9)
    monkeypatch.setattr(chat_template, "MAX_RENDER_SECONDS", 0.0)
    with pytest.raises(ChatTemplateError, match="too long"):
        quadratic.render(messages)
