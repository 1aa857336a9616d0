"""What the engine adds to the operators of a step: scheduling, the batch, sampling, handing tokens to their readers."""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import nnls

from lapidist.engine.async_llm import AsyncLLM
from lapidist.engine.engine import TokensPrompt
from lapidist.engine.sampling_params import SamplingParams
from lapidist.hardware.cpu.cpu import CPU
from lapidist.hardware.cpu.profile import NO_OVERHEAD, CPUProfile, Overhead
from lapidist.models.config import ModelConfig
from lapidist.planner.recipes import checkpoint_recipe
from lapidist.workload.lowering import lower
from lapidist.workload.step import SequenceStep, Step

Progress = Callable[[str, int, int], None]
Sample = tuple[Step, float]
"""A step, and the seconds from its start to the next one's."""

_DECODES = ((1, 16), (4, 16), (16, 16), (32, 16), (64, 16), (1, 400), (4, 250))  # requests, prompt tokens
_TOKENS = 16
_CHUNKS = (32, 128, 256, 500)
_ROUNDS = 3


def measure_overhead(
    checkpoint: Path, profile: CPUProfile, progress: Progress = lambda label, done, total: None
) -> CPUProfile:
    """The profile with the overhead that the engine shows beside its operators, at least zero each.

    Batches of equal requests decode, and single prompts are prefilled, through the same asynchronous interface that a
    server uses.
    """
    config = ModelConfig.from_directory(checkpoint)
    llm = AsyncLLM(
        checkpoint,
        max_num_seqs=max(batch for batch, _ in _DECODES),
        max_num_batched_tokens=512,
        max_model_len=min(1024, config.max_position_embeddings),
        max_queue=sys.maxsize,
    )
    try:
        samples = asyncio.run(_samples(llm, progress))
    finally:
        llm.shutdown()
    return replace(profile, overhead=fit_overhead(profile, config, samples))


def fit_overhead(profile: CPUProfile, config: ModelConfig, samples: list[Sample]) -> Overhead:
    """Non-negative least squares of the steps' times over their operators' and sizes, relative to each time."""
    machine, recipe = CPU(replace(profile, overhead=NO_OVERHEAD)), checkpoint_recipe(config)
    features = np.array(
        [
            (1.0, len(step.sequences), step.tokens, machine.step(lower(config, recipe, step)).seconds)
            for step, _ in samples
        ]
    )
    measured = np.array([seconds for _, seconds in samples])
    found, _ = nnls(features / measured[:, None], np.ones(len(samples)))
    return Overhead(*map(float, found))


async def _samples(llm: AsyncLLM, progress: Progress) -> list[Sample]:
    seeds = count()  # every prompt is another, so that nothing is in the prefix cache
    await _arrivals(llm, 16, 4, next(seeds))
    samples: list[Sample] = []
    total = _ROUNDS * (len(_DECODES) + len(_CHUNKS))
    for _ in range(_ROUNDS):
        for batch, prompt in _DECODES:
            progress("engine", len(samples), total)
            samples.append(await _decode_sample(llm, batch, min(prompt, llm.max_model_len - _TOKENS), seeds))
        for chunk in _CHUNKS:
            progress("engine", len(samples), total)
            samples.append(await _prefill_sample(llm, min(chunk, llm.max_model_len - 1), next(seeds)))
    return samples


async def _decode_sample(llm: AsyncLLM, batch: int, prompt: int, seeds: Iterator[int]) -> Sample:
    """The median time per token while ``batch`` requests decode together."""
    streams = await asyncio.gather(*(_arrivals(llm, prompt, _TOKENS, next(seeds)) for _ in range(batch)))
    half = _TOKENS // 2
    paces = [
        ((later - earlier) / (after - before), after)
        for arrivals in streams
        for (before, earlier), (after, later) in pairwise(arrivals)
    ]
    # At first the others are still being prefilled.
    late = [pace for pace, tokens in paces if tokens > half]
    return Step((SequenceStep(1, prompt + half + half // 2),) * batch, batch), statistics.median(late)


async def _prefill_sample(llm: AsyncLLM, tokens: int, seed: int) -> Sample:
    """The time to the first token of a prompt that is one chunk."""
    [(_, start), (_, first)] = await _arrivals(llm, tokens, 1, seed)
    return Step((SequenceStep(tokens, tokens),), 1), first - start


async def _arrivals(
    llm: AsyncLLM, prompt_tokens: int, output_tokens: int, seed: int
) -> list[tuple[int, float]]:
    """How many tokens of an answer had come when; first none, at the start. A slow reader sees several at once."""
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(llm.config.vocab_size, (prompt_tokens,), generator=generator).tolist()
    params = SamplingParams(temperature=0.0, max_tokens=output_tokens, ignore_eos=True)
    arrivals = [(0, time.perf_counter())]
    async for output in llm.generate(TokensPrompt(prompt_token_ids=prompt), params):
        tokens = len(output.outputs[0].token_ids)
        if tokens > arrivals[-1][0]:
            arrivals.append((tokens, time.perf_counter()))
    return arrivals
