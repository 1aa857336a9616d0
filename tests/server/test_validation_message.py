"""One sentence per bad request, which names the field by its path."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from lapidist.server.protocol.chat import ChatCompletionRequest
from lapidist.server.protocol.completions import CompletionRequest
from lapidist.server.validation_message import describe_validation_errors

USER = {"role": "user", "content": "x"}


def describe(model: type[BaseModel], body: Any) -> tuple[str, str | None]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    # FastAPI puts the part of the request that was read in front of each location.
    errors = [{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()]
    return describe_validation_errors(errors, body)


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"temperature": 3}, "temperature should be less than or equal to 2", "temperature"),
        ({"n": "1"}, "n should be a valid integer", "n"),
        ({"stop": 5}, "stop should be a valid string or a valid list", "stop"),
        ({"stop": ["a", 5]}, "stop[1] should be a valid string", "stop[1]"),
        ({"messages": None}, "messages should be a valid list", "messages"),
        ({"messages": []}, "messages should have at least 1 item after validation, not 0", "messages"),
        ({"messages": [USER, {"role": "user"}]}, "messages[1].content is missing", "messages[1].content"),
        ({"messages": [{"content": "x"}]}, "messages[0].role is missing", "messages[0].role"),
        (
            {"messages": [{"role": "poet", "content": "x"}]},
            "messages[0].role should be 'system' or 'developer' or 'user' or 'assistant' or 'tool'",
            "messages[0].role",
        ),
        (
            {"messages": [{"role": "user", "content": 5}]},
            "messages[0].content should be a valid string or a valid list",
            "messages[0].content",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}
                ]
            },
            "messages[0].content[1] is a part of type 'image_url', and this server takes text only",
            "messages[0].content[1]",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name is missing",
            "response_format.json_schema.name",
        ),
        (
            {"structured_outputs": {"choice": ["a"]}},
            "structured_outputs.choice is not a known field",
            "structured_outputs.choice",
        ),
        ({"logit_bias": {"5": 1000}}, "logit_bias.5 should be less than or equal to 100", "logit_bias.5"),
    ],
)
def test_chat(fields: dict[str, Any], message: str, param: str) -> None:
    body = {"model": "m", "messages": [USER], **fields}
    assert describe(ChatCompletionRequest, body) == (message, param)


@pytest.mark.parametrize(
    ("prompt", "message", "param"),
    [
        (["a", 5], "prompt[1] should be a valid string", "prompt[1]"),
        ([[1, 2], [3, "x"]], "prompt[1][1] should be a valid integer", "prompt[1][1]"),
        ([1, -2], "prompt[1] should be greater than or equal to 0", "prompt[1]"),
    ],
)
def test_prompts_are_measured_against_the_form_that_fits_best(prompt: Any, message: str, param: str) -> None:
    found, path = describe(CompletionRequest, {"model": "m", "prompt": prompt})
    assert path == param
    assert found.startswith(message.split(" should")[0])
    assert message.split("should be ")[1] in found


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_a_body_that_is_no_object(body: Any) -> None:
    assert describe(CompletionRequest, body) == ("the request body should be a JSON object", None)


def test_a_long_path_is_cut() -> None:
    message, param = describe(
        CompletionRequest, {"model": "m", "prompt": "x", "logit_bias": {"9" * 10**6: 1}}
    )
    assert len(message) < 400
    assert param is not None
    assert len(param) < 400
