"""The engine behind an asyncio interface: many callers stream, one thread steps."""

import asyncio
import itertools
import logging
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lapidist.engine.engine import Engine, EngineConfig, EngineStats, Prompt
from lapidist.engine.errors import EngineDeadError, InvalidRequestError, QueueFullError
from lapidist.engine.outputs import RequestOutput
from lapidist.engine.request import Request
from lapidist.engine.sampling_params import SamplingParams
from lapidist.kernels.passing_thread import in_passing_thread
from lapidist.models.checkpoint_parts import CheckpointParts
from lapidist.models.config import ModelConfig
from lapidist.models.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_INLINE_PROMPT_CHARACTERS = 4096


@dataclass(eq=False)
class _Stream:
    """Hands the newest state of a request to its consumer; a slow consumer skips states, never queues them."""

    loop: asyncio.AbstractEventLoop
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    latest: RequestOutput | Exception | None = None

    def put(self, item: RequestOutput | Exception) -> None:
        """Called on the event loop."""
        self.latest = item
        self.changed.set()

    async def get(self) -> RequestOutput:
        await self.changed.wait()
        self.changed.clear()
        item = self.latest
        if isinstance(item, Exception):
            raise item
        assert item is not None
        return item


def _deliver(items: list[tuple[_Stream, RequestOutput | Exception]]) -> None:
    for stream, item in items:
        stream.put(item)


class AsyncLLM:
    """A model that many asyncio tasks can use at once. The options are those of ``EngineConfig``, and:

    Parameters
    ----------
    max_queue : requests waiting for their first step at most; more are refused with ``QueueFullError``.

    Raises
    ------
    CheckpointError, ValueError : as ``LLM``.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str | torch.dtype = "auto",
        device: str = "cpu",
        max_model_len: int | None = None,
        kv_cache_bytes: int | None = None,
        page_size: int = 16,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int = 512,
        enable_prefix_caching: bool = True,
        seed: int = 0,
        record: str | Path | None = None,
        attention_softmax: str = "auto",
        max_queue: int = 256,
    ) -> None:
        config = EngineConfig(
            model,
            dtype,
            device,
            max_model_len,
            kv_cache_bytes,
            page_size,
            max_num_seqs,
            max_num_batched_tokens,
            enable_prefix_caching,
            seed,
            record,
            attention_softmax,
        )
        # Only the thread that steps shall have a team of OpenMP's.
        self._engine = in_passing_thread(lambda: Engine(config))
        self.model_name = Path(model).resolve().name
        self.max_queue = max_queue
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._streams: dict[str, _Stream] = {}
        self._request_ids = itertools.count()
        self._draining = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="lapidist-engine", daemon=True)
        self._thread.start()

    # -- what callers see ----------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Tokenizer:
        return self._engine.tokenizer

    @property
    def config(self) -> ModelConfig:
        return self._engine.config

    @property
    def max_model_len(self) -> int:
        return self._engine.max_model_len

    @property
    def max_context(self) -> int:
        """Positions that a sequence may reach: the longest prompt that a filter may read."""
        return self._engine.max_context

    @property
    def is_alive(self) -> bool:
        return self._failure is None and self._thread.is_alive()

    def default_sampling_params(self) -> SamplingParams:
        return self._engine.default_sampling_params()

    def chat_prompt(self, messages: list[dict[str, Any]], **variables: Any) -> Prompt:
        """The prompt that the checkpoint's chat template makes of a conversation."""
        return self._engine.chat_prompt(messages, **variables)

    @property
    def parts(self) -> CheckpointParts:
        """What the checkpoint's bytes are spent on."""
        return self._engine.parts

    def stats(self) -> EngineStats:
        return self._engine.stats()

    async def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams,
        request_id: str | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Stream a request; every output holds all text so far, the last one has ``finished`` set.

        Closing the iterator, or cancelling the task that reads it, aborts the request.

        Raises
        ------
        InvalidRequestError : it can never be served.
        QueueFullError : too many requests wait already.
        EngineDeadError : the engine has stopped.
        """
        self._check_accepting()
        request_id = request_id if request_id is not None else f"request-{next(self._request_ids)}"
        if request_id in self._streams:
            raise InvalidRequestError(f"request id {request_id!r} is already in use")
        stream = _Stream(asyncio.get_running_loop())
        self._streams[request_id] = stream
        finished = False
        try:
            request = await self._prepare(request_id, prompt, sampling_params)
            self._commands.put(lambda: self._admit(request, stream))
            while not finished:
                output = await stream.get()
                finished = output.finished
                yield output
        finally:
            self._streams.pop(request_id, None)
            if not finished:
                self._commands.put(lambda: self._abort(request_id))

    async def abort(self, request_id: str) -> None:
        """End a request; whoever streams it gets a last output with finish_reason "abort"."""
        self._commands.put(lambda: self._abort(request_id))

    async def drain(self) -> None:
        """Accept nothing new and wait until everything in flight has finished."""
        self._draining = True
        while self._streams and self.is_alive:
            await asyncio.sleep(0.02)

    def age_cache(self, seed: int = 0) -> None:
        """Let the next requests find the KV cache as long service leaves it, see ``Engine.age_cache``."""
        self._commands.put(lambda: self._engine.age_cache(seed))

    def shutdown(self) -> None:
        """Stop the engine thread; requests in flight end with ``EngineDeadError``."""
        if self._thread.is_alive():
            self._commands.put(None)
            self._thread.join()

    async def _prepare(self, request_id: str, prompt: Prompt, params: SamplingParams) -> Request:
        text = prompt.get("prompt") if isinstance(prompt, dict) else prompt
        short = not isinstance(text, str) or len(text) < _INLINE_PROMPT_CHARACTERS
        if short and params.structured_output is None:
            return self._engine.prepare(request_id, prompt, params)
        # Tokenizing a long text or compiling a grammar would hold up everybody on the event loop.
        return await asyncio.to_thread(self._engine.prepare, request_id, prompt, params)

    # -- the engine thread ---------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while self._take_commands():
                if self._engine.has_work():
                    self._publish([request.output() for request in self._engine.step()])
        except BaseException as error:  # the thread's last words: every caller must hear them
            logger.exception("the engine stopped")
            self._failure = error
        finally:
            self._engine.close()
            self._fail_streams()

    def _take_commands(self) -> bool:
        """Carry out what callers asked for; sleeps when there is nothing else to do. False ends the thread."""
        block = not self._engine.has_work()
        while True:
            try:
                command = self._commands.get(block=block)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            block = False

    def _admit(self, request: Request, stream: _Stream) -> None:
        scheduler = self._engine.scheduler
        # Those that the next step can start are not waiting in the queue's sense.
        queued = (
            len(scheduler.waiting)
            + len(scheduler.filtering)
            - (scheduler.max_num_seqs - len(scheduler.running))
        )
        if queued >= self.max_queue:
            self._send([(stream, QueueFullError(queued, self.max_queue))])
        else:
            self._engine.add(request)

    def _abort(self, request_id: str) -> None:
        request = self._engine.abort_request(request_id)
        if request is not None:
            self._publish([request.output()])

    def _publish(self, outputs: list[RequestOutput]) -> None:
        streams = [(self._streams.get(output.request_id), output) for output in outputs]
        self._send([(stream, output) for stream, output in streams if stream is not None])

    def _fail_streams(self) -> None:
        error = EngineDeadError(f"the engine has stopped: {self._failure or 'it was shut down'}")
        self._send([(stream, error) for stream in list(self._streams.values())])

    @staticmethod
    def _send(items: list[tuple[_Stream, RequestOutput | Exception]]) -> None:
        """Wake the consumers, with one call per event loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Stream, RequestOutput | Exception]]] = {}
        for stream, item in items:
            by_loop.setdefault(stream.loop, []).append((stream, item))
        for loop, group in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_deliver, group)

    def _check_accepting(self) -> None:
        if not self.is_alive:
            raise EngineDeadError(f"the engine has stopped: {self._failure or 'it was shut down'}")
        if self._draining:
            raise EngineDeadError("the engine is draining and accepts no new requests")
