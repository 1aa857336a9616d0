"""Many callers on one engine: streaming, cancelling, refusing, ending."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapidist import LLM, AsyncLLM, SamplingParams
from lapidist.engine.errors import EngineDeadError, InvalidRequestError, QueueFullError
from lapidist.engine.outputs import RequestOutput

LONG = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


@pytest.fixture
def llm(llama_directory: Path) -> Iterator[AsyncLLM]:
    llm = AsyncLLM(llama_directory, dtype="float32", max_num_seqs=4, max_num_batched_tokens=64, max_queue=3)
    yield llm
    llm.shutdown()


async def last(
    llm: AsyncLLM, prompt: object, params: SamplingParams, request_id: str | None = None
) -> RequestOutput:
    return [output async for output in llm.generate(prompt, params, request_id)][-1]


async def idle(llm: AsyncLLM) -> None:
    """Wait until nothing runs; fails by the test's timeout if a request is never freed."""
    while llm.stats().running or llm.stats().waiting or llm.stats().pages_used:
        await asyncio.sleep(0.01)


async def test_stream_grows_and_ends_like_the_offline_result(llm: AsyncLLM, llama_directory: Path) -> None:
    expected = LLM(llama_directory, dtype="float32").generate("the cat", LONG)[0].outputs[0]
    texts = []
    async for output in llm.generate("the cat", LONG):
        texts.append(output.outputs[0].text)
    assert len(texts) > 3
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert output.outputs[0].text == expected.text
    assert output.finished


async def test_concurrent_requests_get_their_own_results(llm: AsyncLLM) -> None:
    alone = [(await last(llm, f"the cat {i}", SHORT)).outputs[0].token_ids for i in range(6)]
    together = await asyncio.gather(*(last(llm, f"the cat {i}", SHORT) for i in range(6)))
    assert [output.outputs[0].token_ids for output in together] == alone
    await idle(llm)


async def test_an_aged_cache_changes_no_result(llm: AsyncLLM) -> None:
    prompt = "the cat sat on the mat " * 10
    before = await last(llm, prompt, SHORT)
    llm.age_cache()
    after = await last(llm, prompt, SHORT)
    assert after.outputs[0].token_ids == before.outputs[0].token_ids
    assert llm.stats().prefix_hit_tokens > 0


async def test_closing_the_stream_frees_the_pages(llm: AsyncLLM) -> None:
    stream = llm.generate("the cat", LONG)
    await anext(stream)
    assert llm.stats().pages_used > 0
    await stream.aclose()
    await idle(llm)
    assert llm.stats().generated_tokens < 390


async def test_cancelled_task_frees_the_pages(llm: AsyncLLM) -> None:
    task = asyncio.create_task(last(llm, "the cat", LONG))
    while not llm.stats().running:
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle(llm)


async def test_abort_ends_the_stream_with_what_there_is(llm: AsyncLLM) -> None:
    outputs = []
    async for output in llm.generate("the cat", LONG, "mine"):
        outputs.append(output)
        if len(outputs) == 2:
            await llm.abort("mine")
    assert outputs[-1].outputs[0].finish_reason == "abort"
    await llm.abort("unknown")
    await idle(llm)


async def test_full_queue_refuses_and_recovers(llm: AsyncLLM) -> None:
    results = await asyncio.gather(*(last(llm, f"{i}", SHORT) for i in range(30)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, QueueFullError)]
    served = [result for result in results if isinstance(result, RequestOutput)]
    assert len(refused) + len(served) == 30
    assert len(served) >= 7  # four run, three wait
    assert refused
    assert refused[0].retry_after_seconds >= 1
    assert (await last(llm, "again", SHORT)).finished


async def test_invalid_requests_leave_nothing_behind(llm: AsyncLLM) -> None:
    for prompt in (
        "",
        {"prompt_token_ids": [10**9]},
        {"prompt_token_ids": [1] * 10_000},
        7,
        None,
        {"prompt": 3},
    ):
        with pytest.raises(InvalidRequestError):
            await last(llm, prompt, SHORT)
    stream = llm.generate("the cat", LONG, "same")
    await anext(stream)
    with pytest.raises(InvalidRequestError, match="already in use"):
        await last(llm, "the dog", SHORT, "same")
    await stream.aclose()
    await idle(llm)


async def test_drain_finishes_what_runs_and_refuses_more(llm: AsyncLLM) -> None:
    task = asyncio.create_task(last(llm, "the cat", LONG))
    while not llm.stats().running:
        await asyncio.sleep(0.005)
    drain = asyncio.create_task(llm.drain())
    await asyncio.sleep(0)
    with pytest.raises(EngineDeadError, match="draining"):
        await last(llm, "late", SHORT)
    await drain
    assert (await task).outputs[0].finish_reason == "length"


async def test_shutdown_wakes_whoever_waits(llm: AsyncLLM) -> None:
    task = asyncio.create_task(last(llm, "the cat", LONG))
    while not llm.stats().running:
        await asyncio.sleep(0.005)
    await asyncio.to_thread(llm.shutdown)
    with pytest.raises(EngineDeadError):
        await task
    with pytest.raises(EngineDeadError):
        await last(llm, "late", SHORT)
    llm.shutdown()


async def test_n_completions_stream_together(llm: AsyncLLM) -> None:
    output = await last(llm, "the cat", SamplingParams(n=3, seed=5, max_tokens=10, ignore_eos=True))
    assert [len(completion.token_ids) for completion in output.outputs] == [10, 10, 10]
    await idle(llm)
