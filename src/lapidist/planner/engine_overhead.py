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
from lapidist.hardware.cpu.profile import CPUProfile, Overhead
from lapidist.models.config import ModelConfig
from lapidist.planner.recipes import checkpoint_recipe
from lapidist.workload.lowering import lower
from lapidist.workload.step import SequenceStep, Step

Progress = Callable[[str, int, int], None]
Sample = tuple[Step, float]
"""A step, and the seconds from its start to the next one's."""

_BATCHES = (1, 4, 16, 32, 64)
_PROMPT, _TOKENS = 16, 24
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
        max_num_seqs=max(_BATCHES),
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
    """Non-negative least squares of what the operators leave unexplained, relative to each step's time."""
    machine, recipe = CPU(replace(profile, overhead=Overhead(0.0, 0.0, 0.0))), checkpoint_recipe(config)
    features = np.array([(1.0, len(step.sequences), step.tokens) for step, _ in samples])
    measured = np.array([seconds for _, seconds in samples])
    explained = np.array([machine.step(lower(config, recipe, step)).seconds for step, _ in samples])
    found, _ = nnls(features / measured[:, None], (measured - explained) / measured)
    return Overhead(*map(float, found))


async def _samples(llm: AsyncLLM, progress: Progress) -> list[Sample]:
    seeds = count()  # every prompt is another, so that nothing is in the prefix cache
    await _tokens(llm, _PROMPT, 4, next(seeds))
    samples: list[Sample] = []
    total = _ROUNDS * (len(_BATCHES) + len(_CHUNKS))
    for _ in range(_ROUNDS):
        for batch in _BATCHES:
            progress("engine", len(samples), total)
            samples.append(await _decode_sample(llm, batch, seeds))
        for chunk in _CHUNKS:
            progress("engine", len(samples), total)
            samples.append(await _prefill_sample(llm, min(chunk, llm.max_model_len - 1), next(seeds)))
    return samples


async def _decode_sample(llm: AsyncLLM, batch: int, seeds: Iterator[int]) -> Sample:
    """The median pause between tokens while ``batch`` requests decode together."""
    streams = await asyncio.gather(*(_tokens(llm, _PROMPT, _TOKENS, next(seeds)) for _ in range(batch)))
    half = _TOKENS // 2
    pauses = [later - earlier for times in streams for earlier, later in pairwise(times[half:])]
    kv_length = _PROMPT + half + half // 2
    return Step((SequenceStep(1, kv_length),) * batch, batch), statistics.median(pauses)


async def _prefill_sample(llm: AsyncLLM, tokens: int, seed: int) -> Sample:
    """The time to the first token of a prompt that is one chunk."""
    start = time.perf_counter()
    [first] = await _tokens(llm, tokens, 1, seed)
    return Step((SequenceStep(tokens, tokens),), 1), first - start


async def _tokens(llm: AsyncLLM, prompt_tokens: int, output_tokens: int, seed: int) -> list[float]:
    """When each token of an answer came."""
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.randint(llm.config.vocab_size, (prompt_tokens,), generator=generator).tolist()
    params = SamplingParams(temperature=0.0, max_tokens=output_tokens, ignore_eos=True)
    times: list[float] = []
    async for output in llm.generate(TokensPrompt(prompt_token_ids=prompt), params):
        if len(output.outputs[0].token_ids) > len(times):
            times.append(time.perf_counter())
    return times
