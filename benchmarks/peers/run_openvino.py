"""OpenVINO GenAI: its pipeline with continuous batching, one step at a time."""

import atexit
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import openvino_genai

_BATCH_TOKENS = 512


class OpenVino:
    """A directory that ``write_openvino`` wrote, on the CPU.

    Parameters
    ----------
    context : tokens of one sequence at most.
    sequences : how many may run at once.
    kv_cache_gib : memory of the KV cache, of 8 bits by default.
    properties : of OpenVINO's CPU plugin, above its defaults. Activations that are multiplied by 4-bit weights are
        quantized in groups as long as those of the weights, 128, which is faster than the default of 32.
    """

    def __init__(
        self,
        model: str,
        threads: int,
        context: int = 9216,
        sequences: int = 32,
        kv_cache_gib: int = 2,
        properties: dict[str, str | int] | None = None,
    ) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = kv_cache_gib
        scheduler.max_num_batched_tokens = _BATCH_TOKENS
        scheduler.max_num_seqs = sequences
        scheduler.enable_prefix_caching = False
        plugin = {"INFERENCE_NUM_THREADS": threads, "DYNAMIC_QUANTIZATION_GROUP_SIZE": 128}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            model, scheduler, "CPU", plugin | (properties or {})
        )
        self._context = context
        self._begun: list[_Request] = []
        self._requests = 0
        # The pipeline complains of sequences that are still there when it ends.
        atexit.register(self._cancel)

    def prefill_seconds(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        [request] = self._add([prompt], 1)
        self._step_until(lambda: request.generated == 1)
        return time.perf_counter() - start

    def decode_tokens_per_second(self, prompt: list[int], new_tokens: int) -> float:
        self.begin_seconds([prompt])
        rate = self.continue_tokens_per_second(new_tokens - 1)
        self._cancel()
        return rate

    def begin_seconds(self, prompts: list[list[int]]) -> float:
        """Take in the prompts until each has its first token; ``continue_tokens_per_second`` goes on."""
        start = time.perf_counter()
        self._cancel()
        self._begun = self._add(prompts, self._context - max(map(len, prompts)))
        self._step_until(lambda: all(request.generated for request in self._begun))
        return time.perf_counter() - start

    def continue_tokens_per_second(self, steps: int) -> float:
        """Decode ``steps`` more tokens of every sequence begun."""
        before = sum(request.generated for request in self._begun)
        start = time.perf_counter()
        for _ in range(steps):
            self._pipeline.step()
        seconds = time.perf_counter() - start
        tokens = sum(request.generated for request in self._begun) - before
        if tokens != len(self._begun) * steps:
            raise SystemExit(
                f"OpenVINO generated {tokens} tokens in {steps} steps of {len(self._begun)} sequences"
            )
        return tokens / seconds

    def greedy(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """Greedy continuations of concurrent prompts."""
        requests = self._add(prompts, new_tokens)
        self._step_until(lambda: not self._pipeline.has_non_finished_requests())
        return [request.tokens for request in requests]

    def _add(self, prompts: list[list[int]], new_tokens: int) -> list["_Request"]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = new_tokens
        config.ignore_eos, config.do_sample, config.apply_chat_template = True, False, False
        first, self._requests = self._requests, self._requests + len(prompts)
        return [
            _Request(
                self._pipeline.add_request(
                    first + index, openvino.Tensor(np.array([prompt], np.int64)), config
                )
            )
            for index, prompt in enumerate(prompts)
        ]

    def _step_until(self, done: Callable[[], bool]) -> None:
        while not done():
            self._pipeline.step()

    def _cancel(self) -> None:
        for request in self._begun:
            request.handle.cancel()
        self._begun = []
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()


class _Request:
    """The tokens of a request, which its handle hands over once."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self._tokens: list[int] = []

    @property
    def tokens(self) -> list[int]:
        while self.handle.can_read():
            for output in self.handle.read().values():
                self._tokens += output.generated_ids
        return self._tokens

    @property
    def generated(self) -> int:
        return len(self.tokens)
