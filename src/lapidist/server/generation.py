"""Running one HTTP request's prompts through the engine, for as long as its client is there."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.types import Receive

from lapidist.engine.async_llm import AsyncLLM
from lapidist.engine.outputs import RequestOutput
from lapidist.engine.sampling_params import SamplingParams
from lapidist.server.errors import ApiError
from lapidist.server.lifecycle import Lifecycle, aborted
from lapidist.server.metrics import Metrics
from lapidist.server.prompts import PromptTokens

_T = TypeVar("_T")


@dataclass(frozen=True)
class Generator:
    """The engine, with everything noted that others want to know about its requests."""

    engine: AsyncLLM
    lifecycle: Lifecycle
    metrics: Metrics

    async def stream(
        self, prompts: Sequence[PromptTokens], params: SamplingParams, request_id: str
    ) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        """(index of the prompt, its newest output), as they come; outputs are cumulative.

        A consumer that is slow gets fewer outputs, not older ones. Closing the generator aborts what is
        unfinished.

        Raises
        ------
        ApiError : a completion failed, or the server shut down before it was finished.
        InvalidRequestError, QueueFullError, EngineDeadError : as ``AsyncLLM.generate``.
        """
        streams = [
            self._stream_one(prompt, params, f"{request_id}-{index}") for index, prompt in enumerate(prompts)
        ]
        merged = _merge(streams) if len(streams) > 1 else _number(0, streams[0])
        async with aclosing(merged):
            async for item in merged:
                yield item

    async def finish(
        self, prompts: Sequence[PromptTokens], params: SamplingParams, request_id: str
    ) -> list[RequestOutput]:
        """The finished outputs, in the order of the prompts. Raises what ``stream`` raises."""
        outputs: dict[int, RequestOutput] = {}
        async with aclosing(self.stream(prompts, params, request_id)) as stream:
            async for index, output in stream:
                outputs[index] = output
        return [outputs[index] for index in range(len(prompts))]

    async def _stream_one(
        self, prompt: PromptTokens, params: SamplingParams, request_id: str
    ) -> AsyncGenerator[RequestOutput, None]:
        finished = started = False
        try:
            with self.lifecycle.engine_request(request_id):
                outputs = self.engine.generate({"prompt_token_ids": prompt.token_ids}, params, request_id)
                async with aclosing(outputs):
                    async for output in outputs:
                        started = True
                        finished = output.finished
                        if finished:
                            self.metrics.observe_finished(output)
                        _check_outcome(output, params)
                        yield output
        finally:
            if started and not finished:
                self.metrics.observe_left(params.n)


def _check_outcome(output: RequestOutput, params: SamplingParams) -> None:
    for completion in output.outputs:
        if completion.finish_reason == "abort":
            raise aborted()
        if completion.finish_reason == "error":
            # Some constraints turn out to be impossible only while they are followed; that is the request's fault.
            status = 500 if params.structured_output is None else 400
            raise ApiError(
                status, f"the generation failed: {completion.stop_reason}", code="generation_failed"
            )


async def _number(index: int, stream: AsyncGenerator[_T, None]) -> AsyncGenerator[tuple[int, _T], None]:
    async with aclosing(stream):
        async for item in stream:
            yield index, item


async def _merge(streams: Sequence[AsyncGenerator[_T, None]]) -> AsyncGenerator[tuple[int, _T], None]:
    """Items of several streams as they come; of a stream that is ahead of the consumer only the newest."""
    newest: dict[int, _T] = {}
    changed = asyncio.Event()

    async def pump(index: int, stream: AsyncGenerator[_T, None]) -> None:
        try:
            async with aclosing(stream):
                async for item in stream:
                    newest[index] = item
                    changed.set()
        finally:
            changed.set()

    tasks = [asyncio.create_task(pump(index, stream)) for index, stream in enumerate(streams)]
    try:
        while newest or not all(task.done() for task in tasks):
            await changed.wait()
            changed.clear()
            items = list(newest.items())
            newest.clear()
            for item in items:
                yield item
            for task in tasks:
                if task.done():
                    task.result()  # raises what ended it
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class ClientLeftError(Exception):
    """Nobody is there any more to answer."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of ``work``, which is cancelled when the client closes the connection.

    Raises
    ------
    ClientLeftError : the client has gone.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeftError
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
