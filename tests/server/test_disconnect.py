"""A client that leaves takes its requests with it."""

import asyncio
import contextlib
import random

import pytest

LASTING = {"model": "random-llama", "prompt": "the cat", "max_tokens": 60_000, "ignore_eos": True}
CHAT = {
    "model": "random-llama",
    "messages": [{"role": "user", "content": "the cat"}],
    "max_tokens": 60_000,
    "ignore_eos": True,
}


@pytest.fixture(scope="module")
def lasting(start):
    with start() as served:
        yield served
        served.assert_idle()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), [("/v1/completions", LASTING), ("/v1/chat/completions", CHAT)])
def test_pages_are_freed(lasting, path: str, body: dict[str, object], stream: bool) -> None:
    before = lasting.engine.stats()
    with lasting.send(path, {**body, "stream": stream}):
        lasting.wait_until(lambda stats: stats.generated_tokens > before.generated_tokens + 5, "generation")
    lasting.assert_idle()
    assert lasting.engine.stats().generated_tokens < before.generated_tokens + 50_000


def test_all_sequences_of_a_request_are_aborted(lasting) -> None:
    with lasting.send("/v1/completions", {**LASTING, "prompt": ["the cat", "the dog"], "n": 4}):
        lasting.wait_until(lambda stats: stats.running == 4 and stats.waiting == 4, "a full batch")
    lasting.assert_idle()


def test_a_waiting_request_is_given_up(lasting) -> None:
    with contextlib.ExitStack() as running:
        running.enter_context(lasting.send("/v1/completions", {**LASTING, "n": 4}))
        lasting.wait_until(lambda stats: stats.running == 4, "a full batch")
        with lasting.send("/v1/completions", LASTING):
            lasting.wait_until(lambda stats: stats.waiting == 1, "a waiting request")
        lasting.wait_until(lambda stats: stats.waiting == 0, "its end")
        assert lasting.engine.stats().running == 4
    lasting.assert_idle()


def test_a_client_that_reads_nothing_holds_up_nobody(lasting) -> None:
    with lasting.send("/v1/completions", {**LASTING, "stream": True, "logprobs": 20}):
        before = lasting.engine.stats().generated_tokens
        lasting.wait_until(lambda stats: stats.generated_tokens > before + 3000, "more than fits the buffers")
        answer = lasting.openai_sync().completions.create(
            model="random-llama", prompt="the dog", max_tokens=5
        )
        assert answer.choices
    lasting.assert_idle()


async def test_openai_client_that_closes_its_stream(lasting) -> None:
    client = lasting.openai_async()
    streams = [
        await client.completions.create(
            model="random-llama", prompt="x", max_tokens=60_000, stream=True, extra_body={"ignore_eos": True}
        )
        for _ in range(4)
    ]
    await asyncio.gather(*(anext(aiter(stream)) for stream in streams))
    for stream in streams:
        await stream.close()
    await asyncio.to_thread(lasting.assert_idle)
    await client.close()


async def test_clients_that_come_and_go_leave_nothing_behind(start) -> None:
    """With a cache so small that sequences are preempted."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    with start(kv_cache_bytes=2**18, max_model_len=600, max_num_seqs=16) as served:
        client = served.openai_async()

        async def visit() -> str:
            stays = chance.random() < 0.5
            tokens = chance.randint(1, 200)
            stream = await client.completions.create(
                model="random-llama",
                prompt="the cat " * chance.randint(1, 20),
                n=chance.randint(1, 3),
                max_tokens=tokens,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
            async for chunk in stream:
                if chunk.usage is not None:
                    return "served"
                if not stays and chance.random() < 0.1:
                    break
            else:
                return "lost"
            await stream.close()
            return "left"

        outcomes = await asyncio.gather(*(visit() for _ in range(60)))
        assert set(outcomes) == {"served", "left"}, (seed, outcomes)
        await asyncio.to_thread(served.assert_idle)
        assert served.engine.stats().preemptions > 0, seed
        await client.close()
