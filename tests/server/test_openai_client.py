"""The official client, unmodified, against a real server."""

import asyncio
import json

import openai
import pytest

MODEL = "random-llama"
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "the cat"}]
GREEDY = {"model": MODEL, "temperature": 0, "max_tokens": 12, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def client(served) -> openai.OpenAI:
    return served.openai_sync()


def test_models(client, served) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    card = client.models.retrieve(MODEL)
    assert (card.object, card.id) == ("model", MODEL)
    assert card.model_extra["max_model_len"] == served.engine.max_model_len


def test_chat(client) -> None:
    answer = client.chat.completions.create(messages=MESSAGES, **GREEDY)
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert answer._request_id


def test_chat_stream_adds_up_to_the_whole(client) -> None:
    whole = client.chat.completions.create(messages=MESSAGES, **GREEDY)
    stream = client.chat.completions.create(
        messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **GREEDY
    )
    first, *chunks, usage = list(stream)
    assert first.choices[0].delta.role == "assistant"
    assert not first.choices[0].delta.content
    assert len({chunk.id for chunk in (first, *chunks, usage)}) == 1
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk.usage is None for chunk in (first, *chunks))
    assert usage.choices == []
    assert usage.usage.completion_tokens == whole.usage.completion_tokens
    assert usage.usage.prompt_tokens == whole.usage.prompt_tokens


def test_completion_stream_adds_up_to_the_whole(client) -> None:
    whole = client.completions.create(prompt="the cat", n=3, seed=7, **{**GREEDY, "temperature": 1})
    stream = client.completions.create(
        prompt="the cat", n=3, seed=7, stream=True, **{**GREEDY, "temperature": 1}
    )
    texts, reasons = ["", "", ""], [None, None, None]
    for chunk in stream:
        [choice] = chunk.choices
        assert reasons[choice.index] is None
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason
    assert texts == [choice.text for choice in whole.choices]
    assert len(set(texts)) > 1
    assert reasons == ["length"] * 3


def test_many_prompts_times_n_come_in_order(client) -> None:
    prompts = ["the cat", "the dog sat", "Köln"]
    alone = [client.completions.create(prompt=prompt, **GREEDY).choices[0].text for prompt in prompts]
    assert len(set(alone)) == 3
    together = client.completions.create(prompt=prompts, n=2, **GREEDY)
    assert [choice.index for choice in together.choices] == list(range(6))
    assert [choice.text for choice in together.choices] == [text for text in alone for _ in range(2)]
    assert together.usage.completion_tokens == 6 * 12


def test_token_prompts_are_the_same_as_their_text(client, served) -> None:
    text = client.completions.create(prompt="the cat", echo=True, **GREEDY)
    token_ids = served.engine.tokenizer.encode("the cat")
    assert (
        client.completions.create(prompt=token_ids, echo=True, **GREEDY).choices[0].text
        == text.choices[0].text
    )
    both = client.completions.create(prompt=[token_ids, token_ids], echo=True, **GREEDY)
    assert [choice.text for choice in both.choices] == [text.choices[0].text] * 2
    assert text.choices[0].text.startswith("the cat")


def test_chat_logprobs(client) -> None:
    shown = {**GREEDY, "extra_body": {"ignore_eos": True, "skip_special_tokens": False}}
    answer = client.chat.completions.create(messages=MESSAGES, logprobs=True, top_logprobs=3, **shown)
    content = answer.choices[0].logprobs.content
    assert len(content) == 12
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob  # greedy takes the likeliest
        assert token.logprob <= 0
    joined = b"".join(bytes(token.bytes) for token in content)
    assert joined.decode("utf-8", "replace") == answer.choices[0].message.content
    plain = client.chat.completions.create(messages=MESSAGES, logprobs=True, **GREEDY)
    assert [token.top_logprobs for token in plain.choices[0].logprobs.content] == [[]] * 12


def test_chat_logprobs_in_a_stream(client) -> None:
    whole = client.chat.completions.create(messages=MESSAGES, logprobs=True, top_logprobs=2, **GREEDY)
    stream = client.chat.completions.create(
        messages=MESSAGES, logprobs=True, top_logprobs=2, stream=True, **GREEDY
    )
    tokens = [
        token
        for chunk in stream
        if chunk.choices[0].logprobs is not None
        for token in chunk.choices[0].logprobs.content
    ]
    assert [token.token for token in tokens] == [token.token for token in whole.choices[0].logprobs.content]


def test_completion_logprobs_with_echo(client, served) -> None:
    answer = client.completions.create(prompt="the cat", echo=True, logprobs=2, **GREEDY)
    choice = answer.choices[0]
    logprobs = choice.logprobs
    count = len(served.engine.tokenizer.encode("the cat")) + 12
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == count
    assert logprobs.token_logprobs[0] is None
    assert logprobs.top_logprobs[0] is None
    assert all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert all(1 <= len(top) <= 3 for top in logprobs.top_logprobs[1:])
    assert logprobs.text_offset[0] == 0
    prompt_tokens = len(served.engine.tokenizer.encode("the cat"))
    assert logprobs.text_offset[prompt_tokens] == len("the cat")


def test_scoring_a_prompt_generates_nothing(client) -> None:
    scored = client.completions.create(
        model=MODEL, prompt="the cat sat", echo=True, logprobs=1, max_tokens=0, temperature=0
    )
    longer = client.completions.create(prompt="the cat sat", echo=True, logprobs=1, **GREEDY)
    assert scored.choices[0].text == "the cat sat"
    assert scored.choices[0].finish_reason == "length"
    assert scored.usage.completion_tokens == 0
    count = len(scored.choices[0].logprobs.tokens)
    assert count == scored.usage.prompt_tokens
    assert scored.choices[0].logprobs.token_logprobs[1:] == pytest.approx(
        longer.choices[0].logprobs.token_logprobs[1:count], abs=1e-4
    )


def test_json_schema(client) -> None:
    schema = {
        "type": "object",
        "properties": {"animal": {"enum": ["cat", "dog"]}, "legs": {"type": "integer", "maximum": 9}},
        "required": ["animal", "legs"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )
    found = json.loads(answer.choices[0].message.content)
    assert found["animal"] in ("cat", "dog")
    assert isinstance(found["legs"], int)
    assert answer.choices[0].finish_reason == "stop"


def test_regex(client) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="the cat", extra_body={"structured_outputs": {"regex": "[ab]{3}-[0-9]{2}"}}
    )
    text = answer.choices[0].text
    assert len(text) == 6
    assert text[3] == "-"


def test_tools_are_shown_to_the_template(client) -> None:
    """This checkpoint's template ignores them; they must not be in the way."""
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}],
    }
    messages = [*MESSAGES, called, {"role": "tool", "tool_call_id": "1", "content": "rain"}]
    answer = client.chat.completions.create(messages=messages, tools=[tool], tool_choice="auto", **GREEDY)
    assert answer.choices[0].message.content


async def test_async_client(served) -> None:
    async def ask(client: openai.AsyncOpenAI, stream: bool) -> str:
        if not stream:
            answer = await client.chat.completions.create(messages=MESSAGES, **GREEDY)
            return answer.choices[0].message.content
        text = ""
        async for chunk in await client.chat.completions.create(messages=MESSAGES, stream=True, **GREEDY):
            text += chunk.choices[0].delta.content or ""
        return text

    async with served.openai_async() as client:
        texts = await asyncio.gather(*(ask(client, stream=bool(i % 2)) for i in range(12)))
    assert len(set(texts)) == 1


def test_stop_string(client) -> None:
    whole = client.completions.create(prompt="the cat", **GREEDY).choices[0].text
    stop = whole[4:6]
    cut = client.completions.create(prompt="the cat", stop=[stop], **GREEDY)
    assert cut.choices[0].text == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_bad_request(client) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=5)
    assert caught.value.param == "temperature"
    assert caught.value.type == "invalid_request_error"
    assert "temperature should be less than or equal to 2" in caught.value.message


def test_unknown_model(client) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-17", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("some/model")
