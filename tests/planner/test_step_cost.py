import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.hardware.gpu.expert_overhead import ExpertOverhead
from lapidist.hardware.gpu.gpu import GPU
from lapidist.models.config import ModelConfig
from lapidist.planner.step_cost import ExactStepCost, TabledStepCost, batch_grid, length_grid, token_grid
from lapidist.workload.step import SequenceStep
from tests.planner.machines import BF16, TINY_SHAPE, Roofline

SLIDING = ModelConfig.of_shape("gemma-2-2b")

chunks = st.tuples(st.integers(2, 600), st.integers(0, 9000)).map(
    lambda pair: SequenceStep(pair[0], pair[0] + pair[1])
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(chunks, min_size=1, max_size=6),
    st.lists(st.integers(1, 9000), max_size=40),
    st.sampled_from([1, 2]),
)
@pytest.mark.parametrize("config", [TINY_SHAPE, SLIDING], ids=["full", "sliding"])
def test_the_tables_are_close_to_asking_about_every_step(
    config: ModelConfig, prefills: list[SequenceStep], decodes: list[int], ranks: int
) -> None:
    machine, rows = Roofline(), len(decodes) + len(prefills)
    exact = ExactStepCost(machine, config, BF16, ranks).step(decodes, prefills, rows)
    tabled = TabledStepCost(machine, config, BF16, ranks).step(decodes, prefills, rows)
    assert tabled == pytest.approx(exact, rel=0.02)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=40), st.integers(1, 30))
def test_a_run_of_decodes_costs_what_its_steps_do(lengths: list[int], steps: int) -> None:
    cost = TabledStepCost(Roofline(), TINY_SHAPE, BF16)
    seconds, joules = cost.decode_run(lengths, steps)
    single = [cost.step([length + index for length in lengths], [], len(lengths)) for index in range(steps)]
    assert np.column_stack((seconds, joules)) == pytest.approx(np.array(single))
    exact = ExactStepCost(Roofline(), TINY_SHAPE, BF16).decode_run(lengths, steps)
    assert seconds == pytest.approx(exact[0], rel=0.02)


@pytest.mark.parametrize("shape", ["llama-3.1-8b", "gemma-2-2b", "qwen3-30b-a3b", "gpt-oss-20b"])
def test_the_tables_know_what_engines_add_to_prompts_and_experts(shape: str) -> None:
    config = ModelConfig.of_shape(shape, to_run=False)
    gpu = GPU("h200", "sglang", experts=ExpertOverhead(1.0, 1.0, 1.0, 1.0, 1e-6, 1e-4, 1e-3))
    prompts, decodes = [SequenceStep(64, 64)], [100] * 8
    exact, tabled = (each(gpu, config, BF16, 1) for each in (ExactStepCost, TabledStepCost))
    for step in ((decodes, prompts), ([], prompts), (decodes, [])):
        rows = len(step[0]) + len(step[1])
        assert tabled.step(*step, rows) == pytest.approx(exact.step(*step, rows), rel=0.03)


def test_the_overhead_of_a_step_is_charged_once() -> None:
    machine = Roofline(overhead_seconds=1.0)
    cost = TabledStepCost(machine, TINY_SHAPE, BF16)
    assert cost.step([10], [SequenceStep(7, 20)], 2)[0] == pytest.approx(1.0, rel=0.01)


def test_the_parts_add_up_to_the_whole() -> None:
    cost = TabledStepCost(Roofline(), TINY_SHAPE, BF16)
    whole = cost.step([10], [SequenceStep(64, 64)], 2)[0]
    whole += cost.decode_run([10, 500], 4)[0].sum()
    assert sum(cost.take_seconds_by_part().values()) == pytest.approx(whole)


@pytest.mark.parametrize("grid", [token_grid(), length_grid(), batch_grid()])
def test_grids_rise_from_one(grid: tuple[int, ...]) -> None:
    assert grid[0] == 1
    assert all(below < above for below, above in itertools.pairwise(grid))


def test_a_step_beyond_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond what can be planned"):
        TabledStepCost(Roofline(), TINY_SHAPE, BF16).step([], [SequenceStep(1 << 18, 1 << 18)], 1)


def test_the_tables_hold_for_a_gpu() -> None:
    """Its tiles make steps, and several chunks run as one kernel, of which the tables know no more than each alone."""
    config = ModelConfig.of_shape("llama-3-8b")
    gpu, random = GPU("h200"), Random(0)
    exact, tabled = ExactStepCost(gpu, config, BF16), TabledStepCost(gpu, config, BF16)
    errors = []
    for _ in range(40):
        decodes = [random.randint(1, 4000) for _ in range(random.choice([0, 1, 10, 100]))]
        lengths = [
            (random.randint(2, 1000), random.randint(0, 2000)) for _ in range(random.choice([1, 1, 3]))
        ]
        chunks = [SequenceStep(query, query + before) for query, before in lengths]
        one, other = (cost.step(decodes, chunks, len(decodes) + len(chunks)) for cost in (exact, tabled))
        errors.append(abs(other[0] / one[0] - 1))
    assert np.mean(errors) < 0.01
    assert max(errors) < 0.08
