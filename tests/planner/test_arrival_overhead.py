import asyncio
import math
import random
import time
from itertools import count
from pathlib import Path

import pytest

from lapidist.engine.async_llm import AsyncLLM
from lapidist.engine.errors import EngineDeadError
from lapidist.planner.arrival_overhead import (
    HOSTS,
    ArrivalOverhead,
    Visits,
    fit_arrivals,
    visit_busy_engine,
    visit_idle_engine,
)
from lapidist.planner.calibration_request import ServedRequest
from lapidist.workload.step import SequenceStep, Step
from tests.checkpoints import write_random_llama

TRUTH = ArrivalOverhead(arrival=2e-4, arrival_token=3e-7, request=4e-4, wake=9e-4)
DECODE, PREFILL_TOKEN = 1.3e-3, 3e-5  # seconds
GAP = 2e-4  # between two steps
LATE = 1.5e-4  # a client's timer


class Recording:
    """Steps of a machine whose pace swings by a tenth within a few hundred steps."""

    def __init__(self, strays: float = 0.0) -> None:
        self.steps: list[Step] = []
        self.visits = Visits()
        self._now, self._random, self._strays = 100.0, random.Random(1), strays

    def _run(self, sequences: tuple[SequenceStep, ...], seconds: float) -> None:
        seconds *= 1 + 0.1 * math.sin(len(self.steps) / 50)
        self.steps.append(Step(sequences, len(sequences), seconds, self._now))
        self._now += seconds + GAP

    def hosts_decode(self, steps: int, more_seconds: float = 0.0) -> None:
        for _ in range(steps):
            self._run((SequenceStep(1, 100),) * HOSTS, DECODE + more_seconds)

    def a_visitor_comes(self, prompt_tokens: int) -> None:
        came = self._now + 1e-4
        taken = TRUTH.arrival + TRUTH.arrival_token * prompt_tokens
        stray = 0.02 if self._random.random() < self._strays else 0.0
        self.hosts_decode(1, taken + stray)
        self._prefill(prompt_tokens, hosts=HOSTS)
        self.visits.visitors.append(ServedRequest(prompt_tokens, came - LATE, came, came, self._now))

    def a_pair_comes(self, prompt_tokens: int) -> None:
        requests = []
        for slept in (True, False):
            due = came = self._now
            self._now += TRUTH.request - LATE + (TRUTH.wake + LATE if slept else 0.0)
            self._prefill(prompt_tokens)
            requests.append(ServedRequest(prompt_tokens, due, came, came, self._now - GAP))
        self.visits.pairs.append((requests[0], requests[1]))

    def _prefill(self, prompt_tokens: int, hosts: int = 0) -> None:
        sequences = (*(SequenceStep(1, 100),) * hosts, SequenceStep(prompt_tokens, prompt_tokens))
        self._run(sequences, DECODE + PREFILL_TOKEN * prompt_tokens)


def recording(strays: float = 0.0) -> Recording:
    found = Recording(strays)
    for number in range(60):
        found.hosts_decode(8)
        found.a_visitor_comes((16, 64, 250, 500, 900)[number % 5])
    for number in range(30):
        found.a_pair_comes((32, 250, 500)[number % 3])
    return found


def fit(found: Recording) -> ArrivalOverhead:
    return fit_arrivals(found.steps, found.visits)


def test_known_costs_are_found_again() -> None:
    fitted = fit(recording())
    assert fitted.arrival == pytest.approx(TRUTH.arrival, rel=0.1)
    assert fitted.arrival_token == pytest.approx(TRUTH.arrival_token, rel=0.1)
    assert fitted.request == pytest.approx(TRUTH.request, rel=0.01)
    assert fitted.wake == pytest.approx(TRUTH.wake, rel=0.1)


def test_strays_do_not_matter_much() -> None:
    fitted = fit(recording(strays=0.15))
    for prompt_tokens in (16, 900):
        found = fitted.arrival + fitted.arrival_token * prompt_tokens
        assert found == pytest.approx(TRUTH.arrival + TRUTH.arrival_token * prompt_tokens, rel=0.3)


def test_a_visitor_who_cannot_be_compared_is_left_out() -> None:
    """Another came just before, so that the steps before are not like the one in which it came."""
    found = Recording()
    found.hosts_decode(8)
    found.a_visitor_comes(64)
    found.hosts_decode(1)
    found.a_visitor_comes(900)
    fitted = fit(found)
    taken = fitted.arrival + 64 * fitted.arrival_token
    assert taken == pytest.approx(TRUTH.arrival + 64 * TRUTH.arrival_token, rel=0.2)


def test_a_host_that_came_meanwhile_is_not_the_visitors_doing() -> None:
    found = Recording()
    found.hosts_decode(8)
    found.a_visitor_comes(64)
    found.visits.hosts.append(found.visits.visitors[0].came)
    assert (fit(found).arrival, fit(found).arrival_token) == (0.0, 0.0)


def test_nothing_is_below_zero() -> None:
    found = Recording()
    for _ in range(10):
        found.hosts_decode(8)
        came = found._now + 1e-4
        found.hosts_decode(1, -5e-4)
        found._prefill(64, hosts=HOSTS)
        found.visits.visitors.append(ServedRequest(64, came, came, came, found._now))
        due = found._now
        found._prefill(64)
        slept, awake = (ServedRequest(64, due, due, due, due + later) for later in (0, 1))
        found.visits.pairs.append((slept, awake))
    fitted = fit(found)
    assert fitted.arrival == pytest.approx(0.0, abs=1e-6)
    assert fitted.wake == 0.0
    assert fit_arrivals([], Visits()) == ArrivalOverhead(0.0, 0.0, 0.0, 0.0)


def test_an_engine_is_visited(tmp_path: Path) -> None:
    llm = AsyncLLM(write_random_llama(tmp_path / "model"), max_model_len=64)
    visits, begun = Visits(), time.monotonic()

    async def visit() -> None:
        await visit_busy_engine(llm, visits, 0.01, count())
        await visit_idle_engine(llm, visits, 0.01, count())

    try:
        asyncio.run(visit())
        assert llm.stats().running == 0
    finally:
        llm.shutdown()
    assert len(visits.hosts) >= HOSTS
    assert visits.visitors
    for slept, awake in visits.pairs:
        assert slept.prompt_tokens == awake.prompt_tokens
        assert begun < slept.due < slept.came < slept.first_token < awake.came < awake.first_token
    assert visits.pairs


def test_an_engine_that_stops_ends_the_visit(tmp_path: Path) -> None:
    llm = AsyncLLM(write_random_llama(tmp_path / "model"), max_model_len=64)
    llm.shutdown()
    with pytest.raises(EngineDeadError):
        asyncio.run(visit_busy_engine(llm, Visits(), 1.0, count()))
