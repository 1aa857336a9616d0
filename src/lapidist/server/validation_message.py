"""One clear sentence for what pydantic found wrong with a request."""

from collections.abc import Mapping, Sequence
from typing import Any

Location = tuple[str | int, ...]

# A client's own words may be part of the sentence, and they may be long.
_MAX_CHARACTERS = 300


def describe_validation_errors(errors: Sequence[Mapping[str, Any]], body: Any) -> tuple[str, str | None]:
    """The error deepest inside the request, as (sentence, path of the field).

    Where a field may have several forms, pydantic reports what is wrong with it as each of them; the form
    that fits furthest is the one that was meant.
    """
    paths = [_path_in_body(error, body) for error in errors]
    path = max(paths, key=_depth)
    same = [error for error, other in zip(errors, paths, strict=True) if other == path]
    messages = list(dict.fromkeys(_message(error) for error in same))
    param = _render(path)
    expected = [
        message.removeprefix("should be ") for message in messages if message.startswith("should be ")
    ]
    text = "should be " + " or ".join(expected) if len(expected) == len(messages) else messages[0]
    return _shorten(f"{param or 'the request body'} {text}"), param and _shorten(param)


def _message(error: Mapping[str, Any]) -> str:
    """The predicate of a sentence whose subject is the field."""
    context = error.get("ctx") or {}
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "is not a known field"
        case "union_tag_invalid":
            return f"should be {context['expected_tags'].replace(', ', ' or ')}"
        case "union_tag_not_found":
            return "is missing"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "should be a JSON object"
    message: str = error["msg"]
    for subject in ("Input ", "String ", "List ", "Dictionary ", "Value "):
        message = message.removeprefix(subject)
    return message[0].lower() + message[1:]


def _path_in_body(error: Mapping[str, Any], body: Any) -> Location:
    """The error's location without the names of the forms that pydantic tried: the request lacks those."""
    path: list[str | int] = []
    here = body
    location = error["loc"][1:]  # the first part says "body"
    for part in location:
        in_object = isinstance(here, dict) and part in here
        in_array = isinstance(here, list) and isinstance(part, int) and part < len(here)
        if in_object or in_array:
            here = here[part]
            path.append(part)
    if error["type"] == "missing" and location:
        path.append(location[-1])
    if error["type"].startswith("union_tag"):
        path.append(error["ctx"]["discriminator"].strip("'"))
    return tuple(path)


def _depth(path: Location) -> tuple[int, list[int]]:
    return len(path), [part for part in path if isinstance(part, int)]


def _render(path: Location) -> str | None:
    """``("messages", 0, "content")`` as ``messages[0].content``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or None


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "..."
