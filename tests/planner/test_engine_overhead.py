from collections.abc import Callable
from dataclasses import astuple, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from lapidist.hardware.cpu.cpu import CPU
from lapidist.hardware.cpu.profile import CPUProfile, Overhead
from lapidist.models.config import ModelConfig
from lapidist.planner.arrival_overhead import Visits
from lapidist.planner.calibration_request import ServedRequest
from lapidist.planner.cpu_measurement import measure_operators
from lapidist.planner.engine_overhead import (
    Calibration,
    affordable_bursts,
    fit_overhead,
    measure_overhead,
    until_the_next,
)
from lapidist.planner.recipes import plan_recipe
from lapidist.workload.lowering import lower
from lapidist.workload.step import SequenceStep, Step
from tests.checkpoints import write_random_llama
from tests.planner.test_cpu_measurement import profile_of, small

CONFIG = small("llama-3-8b")
RECIPE = plan_recipe("bf16", CONFIG)
# Contexts from far less than the caches to more.
STEPS = (
    *(Step((SequenceStep(1, context),) * 8, 8) for context in (1, 1000, 40_000)),
    *(Step((SequenceStep(1, 20),) * batch, batch) for batch in (1, 4, 16)),
    *(Step((SequenceStep(tokens, tokens),), 1) for tokens in (8, 32, 60)),
    Step((*(SequenceStep(1, 20),) * 4, SequenceStep(40, 40)), 5),
)


@pytest.fixture(scope="module")
def profile() -> CPUProfile:
    """Of a clock that ticks a microsecond per look."""
    ticks = iter(range(10**9))
    return profile_of(measure_operators(CONFIG, RECIPE, 1, 64, clock=lambda: next(ticks) * 1e-6))


def timed(profile: CPUProfile, seconds: Callable[[Step], float]) -> list[Step]:
    return [replace(step, duration_seconds=seconds(step)) for step in STEPS * 10]


def forecast(profile: CPUProfile) -> Callable[[Step], float]:
    machine = CPU(profile)
    return lambda step: machine.step(lower(CONFIG, RECIPE, step)).seconds


def test_the_overhead_is_found_again(profile: CPUProfile) -> None:
    truth = replace(profile, overhead=Overhead(2e-4, 3e-5, 1e-6, 1.1, cold=4e-4))
    fitted = fit_overhead(profile, CONFIG, timed(profile, forecast(truth)))
    assert astuple(fitted) == pytest.approx(astuple(truth.overhead), rel=1e-3)


def test_strays_do_not_matter_much(profile: CPUProfile) -> None:
    truth = replace(profile, overhead=Overhead(2e-4, 3e-5, 1e-6, 1.1))
    steps = timed(profile, forecast(truth))
    steps[::9] = [replace(step, duration_seconds=5 * step.duration_seconds) for step in steps[::9]]
    found = forecast(replace(profile, overhead=fit_overhead(profile, CONFIG, steps)))
    for step in STEPS:
        assert found(step) == pytest.approx(forecast(truth)(step), rel=0.15)


def test_operators_are_never_taken_for_overhead(profile: CPUProfile) -> None:
    """However well the number of tokens explains the time."""
    fitted = fit_overhead(profile, CONFIG, timed(profile, lambda step: 1e-3 + 1e-4 * step.tokens))
    assert fitted.slowdown >= 0.7


def test_a_step_lasts_until_the_next_one() -> None:
    """But the first, the one in which a request came, the last, and the first one after a pause."""
    steps = [replace(STEPS[0], start_seconds=float(start), duration_seconds=0.5) for start in range(8)]
    slept, awake = ServedRequest(16, 4.5, 4.6, 4.6, 5.5), ServedRequest(16, 6.6, 6.6, 6.6, 7.5)
    calibration = Calibration(first=1, came=[2.5], visits=Visits(pairs=[(slept, awake)]))
    found = until_the_next(steps, calibration)
    assert [(step.start_seconds, step.duration_seconds) for step in found] == [(1.0, 1.0), (3.0, 1.0)]


def test_bursts_are_those_that_the_budget_and_the_context_hold(profile: CPUProfile) -> None:
    budgets = [10.0 ** (quarter / 4) for quarter in range(-24, 9)]
    bursts = [affordable_bursts(profile, CONFIG, budget) for budget in budgets]
    assert len(bursts[0]) == 1
    assert len({len(each) for each in bursts}) > 2
    assert all(set(less) <= set(more) for less, more in pairwise(bursts))
    assert all(burst.prompt_tokens + burst.output_tokens <= 64 for burst in bursts[-1])
    wide = replace(CONFIG, max_position_embeddings=4096)
    assert (
        max(burst.requests * burst.prompt_tokens for burst in affordable_bursts(profile, wide, 1e6)) > 16384
    )


def test_an_engine_is_measured(tmp_path: Path) -> None:
    checkpoint = write_random_llama(tmp_path / "model")
    config = ModelConfig.from_directory(checkpoint)
    recipe = plan_recipe("checkpoint", config)
    profile = profile_of(measure_operators(config, recipe, 0.01, 64))
    torch.manual_seed(0)
    overhead = measure_overhead(checkpoint, profile, 0.01).overhead
    assert overhead.slowdown >= 0.7
    assert overhead.request > 0
    assert min(astuple(overhead)) >= 0
