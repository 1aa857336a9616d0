"""What the engine adds to the operators of a step: scheduling, the batch, sampling, handing tokens to their readers.

The engine serves made-up requests, a burst at a time and then one by one, through the asynchronous interface that a
server uses, and records its steps. A step lasts until the next one begins: what happens between two is somebody's work
too.
"""

import asyncio
import math
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from lapidist.engine.async_llm import AsyncLLM
from lapidist.hardware.cpu.cpu import CPU
from lapidist.hardware.cpu.profile import NO_OVERHEAD, CPUProfile, Overhead
from lapidist.models.config import ModelConfig
from lapidist.planner.arrival_overhead import (
    HOSTS,
    Visits,
    fit_arrivals,
    start_seconds,
    visit_busy_engine,
    visit_idle_engine,
)
from lapidist.planner.calibration_request import serve_request
from lapidist.planner.recipes import checkpoint_recipe
from lapidist.workload.lowering import lower
from lapidist.workload.operators import Attention
from lapidist.workload.step import SequenceStep, Step, read_steps

Progress = Callable[[str, int, int], None]

_CHUNK = 512
_CONTEXT = 1024
_TOKENS = 16  # that all requests of a burst decode together
_VISITS_SHARE = 0.25  # of the budget
# A step that is off by a larger factor's logarithm counts less: something else came in between.
_STRAY = 0.5
# The operators may have been measured in a slower moment of the machine.
_LEAST_SLOWDOWN = 0.7
# Reading all that the last cache held again takes no longer.
_MOST_COLD_SECONDS = 3e-3
# Sizes of an overhead's step, sequence, token, slowdown and cold.
_UNITS = np.array([5e-4, 1e-5, 1e-6, 1.0, 5e-4])


@dataclass(frozen=True)
class Burst:
    """Equal requests that come at once."""

    requests: int
    prompt_tokens: int

    @property
    def output_tokens(self) -> int:
        """Enough that the first request still runs when the last prompt is computed."""
        return _TOKENS + self.requests * self.prompt_tokens // _CHUNK


_BURSTS = tuple(
    Burst(requests, prompt_tokens)
    for requests, prompt_tokens in (
        *((1, prompt_tokens) for prompt_tokens in (16, 32, 128, 256, 500, 900)),
        *((4, 16), (4, 250), (8, 900), (16, 16), (16, 500), (32, 16), (32, 900), (64, 16), (64, 250)),
    )
)


@dataclass
class Calibration:
    """What was served while steps were recorded.

    Attributes
    ----------
    first, end : of the recorded steps that belong to it.
    came : when requests of bursts came.
    """

    first: int = 0
    end: int = sys.maxsize
    came: list[float] = field(default_factory=list)
    visits: Visits = field(default_factory=Visits)


def measure_overhead(
    checkpoint: Path,
    profile: CPUProfile,
    budget_seconds: float,
    progress: Progress = lambda label, done, total: None,
) -> CPUProfile:
    """The profile with the overhead that the engine shows beside its operators, at least zero each.

    Parameters
    ----------
    budget_seconds : see :func:`affordable_bursts` and :func:`calibrate`.
    """
    config = ModelConfig.from_directory(checkpoint)
    bursts = affordable_bursts(profile, config, budget_seconds)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "steps.jsonl"
        llm = AsyncLLM(
            checkpoint,
            max_num_seqs=max(HOSTS + 1, *(burst.requests for burst in bursts)),
            max_num_batched_tokens=_CHUNK,
            max_model_len=min(_CONTEXT, config.max_position_embeddings),
            max_queue=sys.maxsize,
            record=record,
        )
        llm.age_cache()
        try:
            calibration = asyncio.run(calibrate(llm, bursts, budget_seconds, progress=progress))
        finally:
            llm.shutdown()
        return with_overhead(profile, config, list(read_steps(record)), [calibration])


def with_overhead(
    profile: CPUProfile, config: ModelConfig, steps: Sequence[Step], calibrations: Sequence[Calibration]
) -> CPUProfile:
    """The profile with the overhead that calibrations show.

    Parameters
    ----------
    steps : all that were recorded.
    """
    kept = [step for each in calibrations for step in until_the_next(steps, each)]
    visits = Visits.joined(each.visits for each in calibrations)
    overhead = fit_overhead(profile, config, kept)
    return replace(profile, overhead=replace(overhead, **asdict(fit_arrivals(steps, visits))))


def affordable_bursts(profile: CPUProfile, config: ModelConfig, budget_seconds: float) -> list[Burst]:
    """Those that fit into the model's context and, the cheapest first, into three quarters of the budget together, for
    the rest is for requests one by one; one in any case."""
    features = _step_features(profile, config)

    def cost(burst: Burst) -> float:
        prompts = burst.requests * burst.prompt_tokens
        chunk = min(_CHUNK, burst.prompt_tokens)
        prefill = features((SequenceStep(chunk, burst.prompt_tokens),), 1)[3]
        decode = features((SequenceStep(1, burst.prompt_tokens),) * burst.requests, burst.requests)[3]
        return prompts / chunk * prefill + burst.output_tokens * decode

    context = min(_CONTEXT, config.max_position_embeddings)
    bursts = sorted(
        (burst for burst in _BURSTS if burst.prompt_tokens + burst.output_tokens <= context), key=cost
    )
    together = np.cumsum([cost(burst) for burst in bursts])
    return bursts[: max(1, int(np.searchsorted(together, (1 - _VISITS_SHARE) * budget_seconds)))]


def until_the_next(steps: Sequence[Step], calibration: Calibration) -> list[Step]:
    """Steps whose duration is the time until the next one began, but those in which a request came or after which there
    was nothing to do, and the first after a pause."""
    starts = [start_seconds(step) for step in steps]
    visits = calibration.visits
    left_out = {bisect_right(starts, came) - 1 for came in (*calibration.came, *visits.came)}
    left_out |= {bisect_left(starts, slept.came) for slept, _ in visits.pairs}
    # The last one was followed by a pause.
    numbers = range(calibration.first, min(calibration.end, len(steps)) - 1)
    return [
        replace(steps[number], duration_seconds=starts[number + 1] - starts[number])
        for number in numbers
        if number not in left_out
    ]


def fit_overhead(profile: CPUProfile, config: ModelConfig, steps: Sequence[Step]) -> Overhead:
    """Robust least squares of the logarithms of the steps' times, by their operators' times and their sizes.

    What of the time goes with the tokens could all count as the engine's, nothing as the operators', and contexts would
    cost nothing: so the operators are believed within limits. Each kind of step counts alike, however many there are:
    decode steps and those with prompts, by octave of their sequences.
    """
    features = _step_features(profile, config)
    parts = np.array([features(step.sequences, step.logit_rows) for step in steps])
    measured = np.array([step.duration_seconds for step in steps], dtype=float)
    kinds = [(len(step.sequences).bit_length(), step.has_prompt) for step in steps]
    counts = Counter(kinds)
    weights = np.array([math.sqrt(len(kinds) / len(counts) / counts[kind]) for kind in kinds])

    def errors(found: NDArray[np.float64]) -> NDArray[np.float64]:
        # Logarithms: errors relative to the measured times would favour short forecasts.
        return weights * np.log(parts @ (found * _UNITS) / measured)

    start, least = np.ones(len(_UNITS)), np.zeros(len(_UNITS))
    least[3] = _LEAST_SLOWDOWN
    most = np.full(len(_UNITS), np.inf)
    most[4] = _MOST_COLD_SECONDS / _UNITS[4]
    found = least_squares(errors, start, bounds=(least, most), loss="soft_l1", f_scale=_STRAY).x * _UNITS
    step, sequence, token, slowdown, cold = found.tolist()
    return Overhead(step, sequence, token, slowdown, cold=cold)


def _step_features(
    profile: CPUProfile, config: ModelConfig
) -> Callable[[tuple[SequenceStep, ...], int], tuple[float, ...]]:
    """What is multiplied by an overhead's step, sequence, token, slowdown and cold, by sequences and logit rows."""
    cpu, recipe = CPU(replace(profile, overhead=NO_OVERHEAD)), checkpoint_recipe(config)

    def features(sequences: tuple[SequenceStep, ...], rows: int) -> tuple[float, ...]:
        step = Step(sequences, rows)
        operators = lower(config, recipe, step)
        coldness = cpu.coldness(each for each in operators if isinstance(each, Attention))
        return 1.0, len(sequences), step.tokens, cpu.step(operators).seconds, coldness

    return cache(features)


async def calibrate(
    llm: AsyncLLM,
    bursts: Sequence[Burst],
    seconds: float,
    rounds: int = 3,
    seeds: Iterator[int] | None = None,
    progress: Progress = lambda label, done, total: None,
) -> Calibration:
    """Serve bursts, then requests one by one; again and again, so that what disturbs the machine disturbs all alike.

    Parameters
    ----------
    seconds : after which no round is begun.
    rounds : at most.
    seeds : of prompts, each of which is another, so that nothing is in the prefix cache.
    """
    seeds = count() if seeds is None else seeds
    await serve_request(llm, 16, 2, next(seeds))
    calibration, end = Calibration(first=llm.stats().steps), time.monotonic() + seconds
    share = _VISITS_SHARE * seconds / 2 / rounds
    parts = len(bursts) + 2
    for number in range(rounds):
        if number and time.monotonic() >= end:
            break
        for done, burst in enumerate(bursts):
            progress("engine", number * parts + done, rounds * parts)
            requests = (
                serve_request(llm, burst.prompt_tokens, burst.output_tokens, next(seeds))
                for _ in range(burst.requests)
            )
            calibration.came += [each.came for each in await asyncio.gather(*requests)]
        for done, visit in enumerate((visit_busy_engine, visit_idle_engine), start=len(bursts)):
            progress("engine", number * parts + done, rounds * parts)
            await visit(llm, calibration.visits, share, seeds)
    calibration.end = llm.stats().steps
    return calibration
