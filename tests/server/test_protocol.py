"""What a request may say, and what of it reaches the engine."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.sampling_params import SamplingParams, StructuredOutput
from lapidist.server.errors import ApiError
from lapidist.server.protocol.chat import ChatCompletionRequest
from lapidist.server.protocol.completions import CompletionRequest

HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
DEFAULTS = SamplingParams(temperature=0.6, top_k=20, top_p=0.9, repetition_penalty=1.1)


def params(**fields: object) -> SamplingParams:
    request = CompletionRequest.model_validate({"model": "m", "prompt": "x", **fields})
    return request.sampling_params(DEFAULTS, request.max_tokens, request.logprobs)


def test_unset_and_null_fields_take_the_checkpoints_recommendation() -> None:
    assert params() == params(temperature=None, top_k=None, stop=None, seed=None)
    assert (params().temperature, params().top_k, params().top_p) == (0.6, 20, 0.9)


def test_set_fields_win_even_when_they_are_zero() -> None:
    assert params(temperature=0).temperature == 0
    assert params(top_k=0).top_k == 0
    assert params(presence_penalty=0).presence_penalty == 0


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1, exclude_min=True),
            "min_p": st.floats(0, 1),
            "top_k": st.integers(-1, 1000),
            "n": st.integers(1, 100),
            "seed": st.integers(-(2**63), 2**63 - 1),
            "presence_penalty": st.floats(-2, 2),
            "frequency_penalty": st.floats(-2, 2),
            "repetition_penalty": st.floats(0.01, 100),
            "min_tokens": st.integers(0, 16),
            "ignore_eos": st.booleans(),
            "include_stop_str_in_output": st.booleans(),
            "skip_special_tokens": st.booleans(),
            "stop": st.lists(st.text(min_size=1), max_size=4),
            "stop_token_ids": st.lists(st.integers(0, 2**31 - 1)),
        },
    )
)
def test_every_sampling_field_arrives_unchanged(fields: dict[str, object]) -> None:
    found = params(**fields)
    assert {name: getattr(found, name) for name in fields} == fields


def test_logit_bias_keys_become_token_ids() -> None:
    assert params(logit_bias={"17": -100, "3": 0.5}).logit_bias == {17: -100, 3: 0.5}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, StructuredOutput(json_schema={"type": "object"})),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"type": "null"}},
                }
            },
            StructuredOutput(json_schema={"type": "null"}),
        ),
        ({"structured_outputs": {"regex": "a+"}}, StructuredOutput(regex="a+")),
        ({"structured_outputs": {"json": {"type": "null"}}}, StructuredOutput(json_schema={"type": "null"})),
        ({"guided_regex": "a+"}, StructuredOutput(regex="a+")),
        ({"guided_json": {}}, StructuredOutput(json_schema={})),
    ],
)
def test_constraints(fields: dict[str, object], expected: StructuredOutput | None) -> None:
    assert params(**fields).structured_output == expected


def test_contradicting_constraints_are_refused() -> None:
    with pytest.raises(ApiError, match="response_format and guided_regex"):
        params(response_format={"type": "json_object"}, guided_regex="a")
    with pytest.raises(InvalidRequestError, match="exactly one"):
        params(structured_outputs={"json": {}, "regex": "a"})


def test_an_unknown_constraint_is_refused_and_other_unknown_fields_are_not() -> None:
    with pytest.raises(ValidationError):
        params(structured_outputs={"choice": ["a", "b"]})
    params(some_field_of_another_server={"deep": [1, 2, 3]})


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "1"},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": True},
        {"temperature": 2.1},
        {"n": 0},
        {"n": 1.5},
        {"n": 10**30},
        {"seed": 2**63},
        {"stop": ""},
        {"stop": [""]},
        {"logit_bias": {"a": 1}},
        {"logit_bias": {"1": 101}},
        {"stop_token_ids": [-1]},
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": [1, "a"]},
        {"prompt": [["a"]]},
        {"prompt": [-1]},
        {"prompt": None},
        {"stream": 1},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "xml"}},
    ],
)
def test_bad_values(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        params(**fields)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_forms_of_a_prompt(prompt: object, prompts: list[object]) -> None:
    request = CompletionRequest.model_validate({"model": "m", "prompt": prompt})
    assert request.prompts == prompts


@pytest.mark.parametrize(
    "message",
    [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "x", "name": "someone"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": "ok", "refusal": None, "audio": None},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "42", "tool_call_id": "1"},
    ],
)
def test_messages(message: dict[str, object]) -> None:
    ChatCompletionRequest.model_validate({**HELLO, "messages": [message]})


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "user", "content": []},
        {"role": "poet", "content": "x"},
        {"role": "tool", "content": "42"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]},
        "Hello",
    ],
)
def test_bad_messages(message: object) -> None:
    with pytest.raises(ValidationError):
        ChatCompletionRequest.model_validate({**HELLO, "messages": [message]})


@pytest.mark.parametrize("field", ["functions", "function_call"])
def test_what_tools_have_replaced_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match="use tools"):
        ChatCompletionRequest.model_validate({**HELLO, field: []})
