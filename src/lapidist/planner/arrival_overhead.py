"""What a request's coming costs, measured: visitors to an engine that is at work, and to one that sleeps.

The machine's pace drifts by several percent from one second to the next, more than what is looked for. So every step
is compared with one like it that ran a moment before: a step in which a visitor came with the steps just before it, a
first step after a pause with one of the same size without a pause.
"""

import asyncio
import random
import statistics
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
from scipy.optimize import least_squares

from lapidist.engine.async_llm import AsyncLLM
from lapidist.planner.calibration_request import ServedRequest, serve_request
from lapidist.workload.step import Step

HOSTS = 4  # that decode while visitors come
_HOST_PROMPT_TOKENS = 16
_HOST_TOKENS = 256
_VISITOR_TOKENS = 2
_VISITOR_PROMPTS = (250, 900, 64, 500, 16)  # in this order: a short budget sees short and long ones
_STEPS_BETWEEN = (6, 14)
_WARM_PROMPTS = (250, 32, 500, 128)
_PAUSE_SECONDS = (0.01, 0.05, 0.2)
_STEPS_BEFORE = 4  # that a step is compared with
# Beyond a tenth of a step something else came in between.
_STRAY = 0.1
# A request's and a token's share of the time.
_UNITS = np.array([1e-4, 1e-6])


@dataclass
class Visits:
    """What was served.

    Attributes
    ----------
    hosts : when each began to come.
    visitors : to an engine that decodes for hosts.
    pairs : that came to an idle engine one right after the other, the first of them after a pause.
    """

    hosts: list[float] = field(default_factory=list)
    visitors: list[ServedRequest] = field(default_factory=list)
    pairs: list[tuple[ServedRequest, ServedRequest]] = field(default_factory=list)

    @staticmethod
    def joined(parts: "Iterable[Visits]") -> "Visits":
        """Of several times."""
        whole = Visits()
        for each in parts:
            whole.hosts += each.hosts
            whole.visitors += each.visitors
            whole.pairs += each.pairs
        return whole

    @property
    def came(self) -> list[float]:
        """When requests came, of whatever kind."""
        return [
            *self.hosts,
            *(each.came for each in self.visitors),
            *(each.came for pair in self.pairs for each in pair),
        ]


async def visit_busy_engine(llm: AsyncLLM, visits: Visits, seconds: float, seeds: Iterator[int]) -> None:
    """Let visitors come one by one, for so long, to an engine that decodes for hosts; at least one comes."""
    end = time.monotonic() + seconds
    hosts = [asyncio.create_task(_host(llm, visits, seeds)) for _ in range(HOSTS)]
    choice = random.Random(0)
    try:
        for prompt_tokens in cycle(_VISITOR_PROMPTS):
            # At any moment of a step.
            step_seconds = await _let_pass(llm, choice.randint(*_STEPS_BETWEEN), hosts)
            pause = choice.random() * step_seconds
            due = time.monotonic() + pause
            await asyncio.sleep(pause)
            tokens = min(prompt_tokens, llm.max_model_len - _VISITOR_TOKENS)
            visits.visitors.append(await serve_request(llm, tokens, _VISITOR_TOKENS, next(seeds), due))
            if time.monotonic() >= end:
                break
    finally:
        for task in hosts:
            task.cancel()
        await asyncio.gather(*hosts, return_exceptions=True)


async def _host(llm: AsyncLLM, visits: Visits, seeds: Iterator[int]) -> None:
    tokens = min(_HOST_TOKENS, llm.max_model_len - _HOST_PROMPT_TOKENS)
    while True:
        visits.hosts.append(time.monotonic())
        await serve_request(llm, _HOST_PROMPT_TOKENS, tokens, next(seeds))


async def _let_pass(llm: AsyncLLM, steps: int, hosts: Sequence[asyncio.Task[None]]) -> float:
    """Wait until the engine has made so many steps; returns the seconds of one."""
    before, begun = llm.stats().steps, time.monotonic()
    while (done := llm.stats().steps - before) < steps:
        for task in hosts:
            if task.done():
                task.result()  # raises what ended it
        await asyncio.sleep((steps - done) * (time.monotonic() - begun) / done if done else 0.01)
    return (time.monotonic() - begun) / done


async def visit_idle_engine(llm: AsyncLLM, visits: Visits, seconds: float, seeds: Iterator[int]) -> None:
    """Pairs of equal requests, for so long, the first of each pair after a pause; at least one pair."""
    end = time.monotonic() + seconds
    room = llm.max_model_len - _VISITOR_TOKENS
    for prompt_tokens, pause in zip(cycle(_WARM_PROMPTS), cycle(_PAUSE_SECONDS)):
        due = time.monotonic() + pause
        await asyncio.sleep(pause)
        tokens = min(prompt_tokens, room)
        first = await serve_request(llm, tokens, _VISITOR_TOKENS, next(seeds), due)
        second = await serve_request(llm, tokens, _VISITOR_TOKENS, next(seeds))
        visits.pairs.append((first, second))
        if time.monotonic() >= end:
            break


@dataclass(frozen=True)
class ArrivalOverhead:
    """Seconds: taken from the steps under way, by a request and by a token of its prompt; that a request waits beside
    its steps; and that it waits longer where it comes after a pause."""

    arrival: float
    arrival_token: float
    request: float
    wake: float


def fit_arrivals(steps: Sequence[Step], visits: Visits) -> ArrivalOverhead:
    """At least zero each; medians, and robust least squares over visitors.

    Parameters
    ----------
    steps : in the order in which they ran, with start and duration.
    """
    arrival, arrival_token = _taken(steps, visits)
    # A client's timer goes off late.
    late = statistics.median([each.begun - each.due for each in visits.visitors] or [0.0])
    starts = [start_seconds(step) for step in steps]
    wakes, waits = [], []
    for slept, awake in visits.pairs:
        wakes.append(slept.first_token_seconds - awake.first_token_seconds)
        first_step = steps[bisect_left(starts, awake.came)]
        waits.append(awake.first_token_seconds - (first_step.duration_seconds or 0.0))
    return ArrivalOverhead(
        arrival,
        arrival_token,
        request=late + max(0.0, statistics.median(waits or [0.0])),
        wake=max(0.0, statistics.median(wakes or [0.0]) - late),
    )


def _taken(steps: Sequence[Step], visits: Visits) -> tuple[float, float]:
    """From steps under way, of a visitor and of a token of its prompt."""
    starts = [start_seconds(step) for step in steps]
    rows: list[tuple[float, float, float]] = []  # tokens, seconds, seconds of a step before
    for visitor in visits.visitors:
        came = bisect_right(starts, visitor.begun) - 1
        seen = next((at for at in range(came + 1, len(steps)) if steps[at].has_prompt), None)
        first = came - _STEPS_BEFORE
        if seen is None or first < 0 or any(starts[first] <= each < starts[seen] for each in visits.hosts):
            continue
        alike = {len(step.sequences) for step in steps[first:seen]}
        if len(alike) > 1 or any(step.has_prompt for step in steps[first:seen]):
            continue
        periods = np.diff(starts[first : seen + 1])
        before = float(np.median(periods[:_STEPS_BEFORE]))
        taken = float(np.sum(periods[_STEPS_BEFORE:] - before))
        rows.append((visitor.prompt_tokens, taken, before))
    if not rows:
        return 0.0, 0.0
    tokens, taken, before = np.array(rows).T
    parts = np.stack([np.ones_like(tokens), tokens], axis=1) * _UNITS
    found = least_squares(
        lambda sizes: (parts @ sizes - taken) / before,
        np.ones(2),
        bounds=(0.0, np.inf),
        loss="cauchy",
        f_scale=_STRAY,
    ).x
    arrival, arrival_token = (found * _UNITS).tolist()
    return arrival, arrival_token


def start_seconds(step: Step) -> float:
    assert step.start_seconds is not None
    return step.start_seconds
