"""Hugging Face ``transformers``: ``generate`` in bfloat16 with static batches."""

import time

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.streamers import BaseStreamer


class _Clock(BaseStreamer):
    """Notes when each token is handed over; the first call brings the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


class Transformers:
    """A checkpoint as ``AutoModelForCausalLM`` loads it, with fused attention (sdpa)."""

    def __init__(self, checkpoint: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = AutoModelForCausalLM.from_pretrained(
            checkpoint, dtype=torch.bfloat16, attn_implementation="sdpa"
        ).eval()

    def prefill_seconds(self, prompt: list[int]) -> float:
        start = time.perf_counter()
        self._generate([prompt], 1)
        return time.perf_counter() - start

    def decode_tokens_per_second(self, prompt: list[int], new_tokens: int) -> float:
        clock = _Clock()
        self._generate([prompt], new_tokens, clock)
        generated = clock.times[1:]
        return (new_tokens - 1) / (generated[-1] - generated[0])

    def batch_decode_tokens_per_second(self, prompts: list[list[int]], new_tokens: int) -> float:
        clock = _Clock()
        self._generate(prompts, new_tokens, clock)
        generated = clock.times[1:]
        return len(prompts) * (new_tokens - 1) / (generated[-1] - generated[0])

    def mixed_seconds(self, prompts: list[list[int]], new_tokens: list[int], batch_size: int) -> float:
        """Static batches: prompts padded to the longest, and every answer as long as the batch's longest.

        Requests of like answer length share a batch, which wastes least.
        """
        start = time.perf_counter()
        order = sorted(range(len(prompts)), key=lambda index: new_tokens[index])
        for first in range(0, len(order), batch_size):
            batch = order[first : first + batch_size]
            self._generate([prompts[index] for index in batch], max(new_tokens[index] for index in batch))
        return time.perf_counter() - start

    @torch.inference_mode()
    def _generate(
        self, prompts: list[list[int]], new_tokens: int, streamer: BaseStreamer | None = None
    ) -> None:
        longest = max(map(len, prompts))
        padded = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        # Without an end-of-text token every answer has the wanted length.
        settings = GenerationConfig(
            max_new_tokens=new_tokens, do_sample=False, pad_token_id=0, eos_token_id=None
        )
        output = self._model.generate(
            padded, attention_mask=mask, generation_config=settings, streamer=streamer
        )
        if output.shape != (len(prompts), longest + new_tokens):
            raise SystemExit(
                f"transformers generated {output.shape[1] - longest} tokens instead of {new_tokens}"
            )
