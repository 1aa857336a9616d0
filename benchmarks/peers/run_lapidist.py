"""Lapidist's own engine, through its public interface."""

import time

import torch

from lapidist import LLM, SamplingParams
from lapidist.engine.request import Request


class Lapidist:
    """A checkpoint in ``LLM``; without prefix caching, so that every run does all its work.

    Parameters
    ----------
    context : tokens of one sequence at most.
    sequences : how many may run at once.
    kv_cache_bytes : as of ``LLM``.
    """

    def __init__(
        self,
        checkpoint: str,
        threads: int,
        context: int = 9216,
        sequences: int = 16,
        kv_cache_bytes: int = 1 << 29,
    ) -> None:
        torch.set_num_threads(threads)
        self._llm = LLM(
            checkpoint,
            dtype="bfloat16",
            max_model_len=context,
            max_num_seqs=sequences,
            kv_cache_bytes=kv_cache_bytes,
            enable_prefix_caching=False,
        )
        self._begun: list[Request] = []

    def prefill_seconds(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        self._generate([prompt], [1])
        return time.perf_counter() - start

    def decode_tokens_per_second(self, prompt: list[int], new_tokens: int) -> float:
        metrics = self._generate([prompt], [new_tokens])[0].metrics
        return (new_tokens - 1) / (metrics.finished_time - metrics.first_token_time)

    def batch_decode_tokens_per_second(self, prompts: list[list[int]], new_tokens: int) -> float:
        """From the moment when every sequence has its first token until the first of them is done."""
        self.begin_seconds(prompts)
        rate = self.continue_tokens_per_second(new_tokens - 1)
        self._abort()
        return rate

    def begin_seconds(self, prompts: list[list[int]]) -> float:
        """Take in the prompts until each has its first token; ``continue_tokens_per_second`` goes on.

        As in a server, the first prompts' sequences go on decoding while the last are taken in.
        """
        start = time.perf_counter()
        self._abort()
        engine = self._llm.engine
        for index, prompt in enumerate(prompts):
            endless = _greedy(self._llm.max_model_len - len(prompt))
            self._begun.append(engine.prepare(str(index), {"prompt_token_ids": prompt}, endless))
            engine.add(self._begun[-1])
        while not all(map(_generated, self._begun)):
            engine.step()
        return time.perf_counter() - start

    def continue_tokens_per_second(self, steps: int) -> float:
        """Decode ``steps`` more tokens of every sequence begun."""
        before = sum(map(_generated, self._begun))
        start = time.perf_counter()
        for _ in range(steps):
            self._llm.engine.step()
        seconds = time.perf_counter() - start
        tokens = sum(map(_generated, self._begun)) - before
        if tokens != len(self._begun) * steps:
            raise SystemExit(
                f"lapidist generated {tokens} tokens in {steps} steps of {len(self._begun)} sequences: "
                "give it a larger KV cache or context"
            )
        return tokens / seconds

    def mixed_seconds(self, prompts: list[list[int]], new_tokens: list[int]) -> float:
        start = time.perf_counter()
        self._generate(prompts, new_tokens)
        return time.perf_counter() - start

    def _abort(self) -> None:
        for request in self._begun:
            self._llm.engine.abort_request(request.request_id)
        self._begun = []

    def _generate(self, prompts: list[list[int]], new_tokens: list[int]) -> list:
        self._abort()
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


def _generated(request: Request) -> int:
    """Tokens beyond the prompt."""
    return len(request.completions[0].sequence.token_ids) - len(request.prompt_token_ids)
