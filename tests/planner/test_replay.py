"""Recorded steps on a virtual clock."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from lapidist import LLM, SamplingParams
from lapidist.planner.replay import replay_steps
from lapidist.planner.step_cost import ExactStepCost
from lapidist.workload.recipe import Recipe
from lapidist.workload.step import FilterStep, SequenceStep, Step, read_steps
from tests.planner.machines import BF16, TINY_SHAPE, Metronome, Roofline


def test_the_clock_runs_from_step_to_step() -> None:
    steps = [
        Step((SequenceStep(3, 3),), 1, 9.0, 100.0),
        Step((), 0, None, None, (FilterStep("layer", 0, 2, 2),)),
    ]
    found = list(replay_steps(steps, Metronome(), TINY_SHAPE, BF16))
    assert [(step.start_seconds, step.duration_seconds) for step in found] == [(0.0, 1.0), (1.0, 1.0)]
    times = {"duration_seconds": None, "start_seconds": None}
    assert [replace(step, **times) for step in found] == [replace(step, **times) for step in steps]


def test_plain_steps_cost_what_the_simulation_says() -> None:
    step = Step((SequenceStep(1, 40), SequenceStep(1, 7), SequenceStep(30, 60)), 3)
    [found] = replay_steps([step], Roofline(), TINY_SHAPE, BF16)
    cost = ExactStepCost(Roofline(), TINY_SHAPE, BF16)
    assert found.duration_seconds == cost.step([40, 7], [SequenceStep(30, 60)], 3)[0]


def test_a_recorded_run_with_filters(llama_directory: Path, tmp_path: Path) -> None:
    """A filter's forecast is less than that of the whole prompt by about what the filter saves."""
    token_ids = torch.randint(3, 300, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    seconds: dict[str, float] = {}
    methods: dict[str, Any] = {
        "full": None,
        "gemfilter": {"method": "gemfilter", "layer": 0, "keep": 20},
        "snapkv": {"method": "snapkv", "keep": 20, "window": 4},
    }
    for name, prompt_filter in methods.items():
        file = tmp_path / f"{name}.jsonl"
        llm = LLM(llama_directory, record=file)
        params = SamplingParams(temperature=0, max_tokens=3, prompt_filter=prompt_filter)
        llm.generate({"prompt_token_ids": token_ids}, params)
        llm.engine.close()
        machine = Roofline(overhead_seconds=0.0)
        steps = list(replay_steps(read_steps(file), machine, llm.engine.config, Recipe.named("fp32")))
        assert all(
            later.start_seconds == pytest.approx((step.start_seconds or 0) + (step.duration_seconds or 0))
            for step, later in pairwise(steps)
        )
        seconds[name] = sum(step.duration_seconds or 0 for step in steps)
    assert seconds["gemfilter"] < 0.5 * seconds["full"]
    assert seconds["snapkv"] == pytest.approx(seconds["full"], rel=0.3)


def test_a_step_of_another_model() -> None:
    step = Step((), 0, filters=(FilterStep("layer", 99, 2, 2),))
    with pytest.raises(ValueError, match="layer 99 of a model of 24 layers"):
        list(replay_steps([step], Metronome(), TINY_SHAPE, BF16))
