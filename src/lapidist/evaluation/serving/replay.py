"""Send the requests of a trace to a target at the trace's times, or as fast as so many clients can."""

import asyncio
import time
from collections.abc import Callable, Sequence

from lapidist.evaluation.serving.prompts import PromptMaker
from lapidist.evaluation.serving.target import RequestFailedError, Target
from lapidist.workload.request_record import RequestRecord
from lapidist.workload.trace import TraceRequest


class Replay:
    """One replay of a trace.

    Parameters
    ----------
    concurrency : None sends every request when its time has come, however many are under way (open loop);
        a number lets so many clients take the next request as soon as they have their answer (closed loop).
    on_finished : called after each request.

    Attributes
    ----------
    records : of the requests sent so far, in the order of sending; all of them after :meth:`run`, some when
        it was cancelled.
    """

    def __init__(
        self,
        target: Target,
        trace: Sequence[TraceRequest],
        make_prompt: PromptMaker,
        concurrency: int | None = None,
        on_finished: Callable[[], None] = lambda: None,
    ) -> None:
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {concurrency}")
        self.records: list[RequestRecord] = []
        self._target = target
        self._trace = trace
        self._make_prompt = make_prompt
        self._concurrency = concurrency
        self._on_finished = on_finished
        self._start = time.perf_counter()
        self._end: float | None = None

    @property
    def duration_seconds(self) -> float:
        """From the start to the last answer, or to now while it runs."""
        return (self._end or time.perf_counter()) - self._start

    async def run(self) -> None:
        """Send everything and wait for every answer; errors are recorded, not raised."""
        self._start = time.perf_counter()
        try:
            await (self._open_loop() if self._concurrency is None else self._closed_loop(self._concurrency))
        finally:
            self._end = time.perf_counter()

    async def _open_loop(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for index, request in enumerate(self._trace):
                await asyncio.sleep(request.arrival_seconds - self._now())
                tasks.create_task(self._send(index, request, due_seconds=request.arrival_seconds))

    async def _closed_loop(self, clients: int) -> None:
        remaining = iter(enumerate(self._trace))

        async def client() -> None:
            for index, request in remaining:
                await self._send(index, request, due_seconds=self._now())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(clients):
                tasks.create_task(client())

    async def _send(self, index: int, request: TraceRequest, due_seconds: float) -> None:
        record = RequestRecord(due_seconds, request.prompt_tokens)
        self.records.append(record)
        try:
            done = await self._target.complete(
                self._make_prompt(index, request),
                request.output_tokens,
                on_chunk=lambda: record.chunk_seconds.append(self._now()),
            )
        except RequestFailedError as error:
            record.error = str(error)
        else:
            record.finished_seconds = self._now()
            record.output_tokens = done.output_tokens
            record.prompt_tokens = done.prompt_tokens or record.prompt_tokens
            if not record.chunk_seconds:
                record.error = "the answer was empty"
        self._on_finished()

    def _now(self) -> float:
        return time.perf_counter() - self._start
