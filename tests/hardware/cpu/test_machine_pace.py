import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.hardware.machine_pace import MachinePace, PacedStepCost, bias, sensitivity
from lapidist.planner.step_cost import ExactStepCost
from lapidist.workload.step import SequenceStep, Step
from tests.planner.machines import BF16, TINY_SHAPE, Metronome

DECODE, PREFILL = 0.9, 0.2  # exponents
SLOW = math.log(1.5)


def is_slow(when: float) -> bool:
    """In plateaus of two seconds, of which decode steps happen to see more than prompts."""
    return int(when / 2) % 3 == 1


def paces() -> MachinePace:
    times = [number / 4 for number in range(240)]
    choice = random.Random(0)
    return MachinePace(
        times, [SLOW * is_slow(when) + (2.0 if choice.random() < 0.03 else 0.0) for when in times]
    )


def forecast(step: Step) -> float:
    return 0.03 + 1e-4 * step.tokens


def steps() -> Iterator[Step]:
    """Of batches that a forecast misjudges, each in its own way."""
    choice = random.Random(1)
    when = 1.0
    while when < 58:
        batch = choice.choice((1, 4, 16))
        prompt = choice.random() < 0.3
        sequences = (SequenceStep(1, 20),) * batch + ((SequenceStep(256, 256),) if prompt else ())
        step = Step(sequences, len(sequences), 1.0, when)
        off = {1: 1.1, 4: 0.9, 16: 1.0}[batch] * (1.2 if prompt else 1.0)
        slow = SLOW * is_slow(when) * (PREFILL if prompt else DECODE)
        seconds = forecast(step) * off * math.exp(slow) * choice.uniform(0.98, 1.02)
        yield replace(step, duration_seconds=seconds)
        when += seconds


def test_how_steps_follow_the_reference_is_found_again() -> None:
    found = sensitivity(list(steps()), paces(), forecast)
    assert found.decode == pytest.approx(DECODE, abs=0.05)
    assert found.prefill == pytest.approx(PREFILL, abs=0.05)


@pytest.mark.parametrize("pace", [0.0, SLOW])
def test_at_one_pace_steps_show_what_a_forecast_misjudges(pace: float) -> None:
    made = list(steps())
    follows = sensitivity(made, paces(), forecast)
    decode, prefill = bias(follows.at_pace(made, paces(), pace), forecast)
    assert decode == pytest.approx(math.exp(DECODE * pace), rel=0.04)
    assert prefill == pytest.approx(1.2 * math.exp(PREFILL * pace), rel=0.04)


def test_a_reference_that_never_moves_explains_nothing() -> None:
    still = MachinePace([0.0, 30.0, 60.0], [0.1, 0.1, 0.1])
    found = sensitivity(list(steps()), still, forecast)
    assert (found.decode, found.prefill) == (0.0, 0.0)
    assert still.mean(0, 60) == pytest.approx(0.1)


def test_the_reference_disturbs_short_steps_only() -> None:
    pace = MachinePace([1.0, 2.0], [0.0, 0.0])
    step = Step((SequenceStep(1, 20),), 1, 0.01, 0.995)
    assert pace.disturbs(step)
    assert not pace.disturbs(replace(step, start_seconds=1.5))
    assert not pace.disturbs(replace(step, duration_seconds=0.4))


def test_costs_are_corrected_by_kind() -> None:
    cost = PacedStepCost(ExactStepCost(Metronome(), TINY_SHAPE, BF16), 0.5, 3.0)
    assert cost.step([10], [], 1)[0] == 0.5
    assert cost.step([10], [SequenceStep(4, 4)], 2)[0] == 3.0
    assert cost.decode_run([10, 12], 3)[0].tolist() == [0.5] * 3
