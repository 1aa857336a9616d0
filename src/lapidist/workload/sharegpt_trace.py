"""Conversations in the ShareGPT format, or as lists of OpenAI messages, as requests with real text."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from lapidist.workload.text_files import read_lines
from lapidist.workload.trace import Trace, TraceRequest

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
}


def read_sharegpt_trace(path: Path, count_tokens: Callable[[str], int]) -> Trace:
    """One request per conversation: its first user message, answered at the length of the reply to it.

    Accepts ``[{"conversations": [{"from": "human", "value": ...}, ...]}]`` and the same list with
    ``messages`` of ``{"role": "user", "content": ...}``. A conversation whose first user message is empty, or
    is not answered by text, holds no request. The files tell no times: every request arrives at 0 seconds.

    Parameters
    ----------
    count_tokens : tokens of a text in the tokenizer that the replay uses.

    Raises
    ------
    ValueError : the file is no such list; the message names the file and the conversation.
    """
    text = "".join(read_lines(path))
    try:
        conversations = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(conversations, list):
        raise ValueError(f"{path}: expected a list of conversations, got {type(conversations).__name__}")
    found = []
    for number, conversation in enumerate(conversations, start=1):
        turns = _turns(conversation, where=f"{path}, conversation {number}")
        exchange = _first_exchange(turns)
        if exchange is not None:
            prompt, reply = exchange
            found.append(TraceRequest(0.0, max(1, count_tokens(prompt)), max(1, count_tokens(reply)), prompt))
    return tuple(found)


def _turns(conversation: object, where: str) -> list[tuple[str, str]]:
    """(role, text) of each turn, roles in OpenAI's words where they have one there."""
    if not isinstance(conversation, dict):
        raise ValueError(f"{where}: expected an object, got {type(conversation).__name__}")
    for turns_key, role_key, text_key in (
        ("conversations", "from", "value"),
        ("messages", "role", "content"),
    ):
        turns = conversation.get(turns_key)
        if isinstance(turns, list):
            return [_turn(turn, role_key, text_key, where) for turn in turns]
    raise ValueError(f'{where}: expected a list under "conversations" or "messages"')


def _turn(turn: object, role_key: str, text_key: str, where: str) -> tuple[str, str]:
    role = turn.get(role_key) if isinstance(turn, dict) else None
    text = turn.get(text_key) if isinstance(turn, dict) else None
    if not isinstance(role, str) or not isinstance(text, str):
        raise ValueError(f'{where}: every turn needs "{role_key}" and "{text_key}" as text')
    return _ROLES.get(role, role), text


def _first_exchange(turns: list[tuple[str, str]]) -> tuple[str, str] | None:
    for (role, prompt), (next_role, reply) in pairwise(turns):
        if role == "user":
            return (prompt, reply) if next_role == "assistant" and prompt and reply else None
    return None
