"""Lapidist's own engine, through its public interface."""

import time

import torch

from lapidist import LLM, SamplingParams


class Lapidist:
    """A checkpoint in ``LLM``; without prefix caching, so that every run does all its work."""

    def __init__(self, checkpoint: str, threads: int, context: int = 9216) -> None:
        torch.set_num_threads(threads)
        self._llm = LLM(
            checkpoint,
            dtype="bfloat16",
            max_model_len=context,
            max_num_seqs=16,
            kv_cache_bytes=1 << 29,
            enable_prefix_caching=False,
        )

    def prefill_seconds(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        self._generate([prompt], [1])
        return time.perf_counter() - start

    def decode_tokens_per_second(self, prompt: list[int], new_tokens: int) -> float:
        metrics = self._generate([prompt], [new_tokens])[0].metrics
        return (new_tokens - 1) / (metrics.finished_time - metrics.first_token_time)

    def batch_decode_tokens_per_second(self, prompts: list[list[int]], new_tokens: int) -> float:
        """From the moment when every sequence has its first token until the first of them is done."""
        requests = [
            self._llm.engine.prepare(str(index), {"prompt_token_ids": prompt}, _greedy(256))
            for index, prompt in enumerate(prompts)
        ]
        engine = self._llm.engine
        for request in requests:
            engine.add(request)
        while any(
            len(request.completions[0].sequence.token_ids) == len(request.prompt_token_ids)
            for request in requests
        ):
            engine.step()
        start = time.perf_counter()
        for _ in range(new_tokens - 1):
            engine.step()
        seconds = time.perf_counter() - start
        for request in requests:
            engine.abort_request(request.request_id)
        return len(prompts) * (new_tokens - 1) / seconds

    def mixed_seconds(self, prompts: list[list[int]], new_tokens: list[int]) -> float:
        start = time.perf_counter()
        self._generate(prompts, new_tokens)
        return time.perf_counter() - start

    def _generate(self, prompts: list[list[int]], new_tokens: list[int]) -> list:
        params = [_greedy(count) for count in new_tokens]
        outputs = self._llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params)
        for output, count in zip(outputs, new_tokens, strict=True):
            if len(output.outputs[0].token_ids) != count:
                raise SystemExit(
                    f"lapidist generated {len(output.outputs[0].token_ids)} tokens instead of {count}"
                )
        return outputs


def _greedy(tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
