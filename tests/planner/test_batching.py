from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.planner.batching import BATCHING_BY_BACKEND, MIXED, Batching
from lapidist.planner.machines import find_machine
from lapidist.planner.simulation import ServingSettings, Simulation, SimulationResult
from lapidist.planner.step_cost import ExactStepCost, TabledStepCost
from lapidist.workload.step import Step
from lapidist.workload.trace import Trace, TraceRequest
from tests.planner.machines import BF16, TINY_SHAPE, Metronome, Roofline
from tests.planner.random_traces import traces

SERVING = ServingSettings(
    num_pages=4096, max_num_seqs=16, max_num_batched_tokens=64, enable_prefix_caching=False
)
PREFILL_FIRST, WHOLE = Batching(prefill_first=True), Batching(whole_prompts=True)


def steps_of(trace: Trace, batching: Batching, concurrency: int | None = None) -> list[list[int]]:
    """New tokens of every sequence in every step, each of a second."""
    found: list[Step] = []
    serving = replace(SERVING, batching=batching)
    cost = ExactStepCost(Metronome(), TINY_SHAPE, BF16)
    Simulation(trace, serving, cost, concurrency=concurrency, on_step=found.append).run()
    return [[sequence.query_length for sequence in step.sequences] for step in found]


def test_prompts_share_their_step_with_decodes_or_stop_them() -> None:
    trace = (TraceRequest(0.0, 10, 4), TraceRequest(1.5, 20, 2))
    assert steps_of(trace, MIXED) == [[10], [1], [1, 20], [1, 1]]
    assert steps_of(trace, PREFILL_FIRST) == [[10], [1], [20], [1, 1], [1]]


def test_a_long_prompt_is_cut_by_whoever_cuts() -> None:
    together = (TraceRequest(0.0, 50, 1), TraceRequest(0.0, 40, 1))
    assert steps_of(together, MIXED) == [[50, 14], [26]]
    assert steps_of(together, PREFILL_FIRST) == [[50, 14], [26]]
    assert steps_of(together, WHOLE) == [[50], [40]]
    assert steps_of((TraceRequest(0.0, 100, 1),), WHOLE) == [[64], [36]]


def test_decodes_do_not_keep_a_whole_prompt_out() -> None:
    trace = (TraceRequest(0.0, 10, 4), TraceRequest(0.5, 64, 1))
    assert steps_of(trace, WHOLE) == [[10], [1, 64], [1], [1]]


def test_prompts_wait_for_others_so_long_or_until_there_are_enough() -> None:
    batching = Batching(wait_steps=2, wait_share=0.5)
    alone = (TraceRequest(0.0, 10, 6), TraceRequest(0.5, 10, 1))
    assert steps_of(alone, batching) == [[10], [1], [1], [1, 10], [1], [1]]
    enough = (TraceRequest(0.0, 10, 4), TraceRequest(0.5, 10, 1), TraceRequest(1.5, 25, 1))
    assert steps_of(enough, batching) == [[10], [1], [1, 10, 25], [1]]


def test_clients_of_equal_answers_stay_together_where_prompts_stop_decodes() -> None:
    """Each client's prompt fills a step: beside decodes they come one after another, else all at once."""
    trace = (TraceRequest(0.0, 60, 30),) * 24
    serving = replace(SERVING, num_pages=8192)
    waits = {}
    for batching in (MIXED, PREFILL_FIRST):
        cost = ExactStepCost(Metronome(), TINY_SHAPE, BF16)
        run = Simulation(trace, replace(serving, batching=batching), cost, concurrency=8).run()
        waits[batching.prefill_first] = sum(record.first_token_seconds for record in run.records[8:]) / 16
    assert waits[True] > 2 * waits[False]


batchings = st.builds(Batching, prefill_first=st.booleans(), whole_prompts=st.booleans()) | st.builds(
    Batching,
    whole_prompts=st.booleans(),
    wait_steps=st.integers(0, 3),
    wait_share=st.sampled_from([0.0, 0.5, 1.0]),
)


@settings(max_examples=60, deadline=None)
@given(trace=traces, batching=batchings, num_pages=st.integers(14, 60), fast_forward=st.booleans())
def test_every_request_gets_all_its_tokens(
    trace: Trace, batching: Batching, num_pages: int, fast_forward: bool
) -> None:
    def run(fast: bool) -> SimulationResult:
        serving = replace(SERVING, num_pages=num_pages, max_num_seqs=6, batching=batching)
        cost = TabledStepCost(Roofline(1.0), TINY_SHAPE, BF16)
        return Simulation(trace, serving, cost, fast_forward=fast).run()

    result = run(fast_forward)
    assert [record.output_tokens for record in result.records] == [each.output_tokens for each in trace]
    assert result.duration_seconds == pytest.approx(run(not fast_forward).duration_seconds)


def test_engines_are_known_by_their_way() -> None:
    assert BATCHING_BY_BACKEND["sglang"].prefill_first
    assert BATCHING_BY_BACKEND["trtllm"].whole_prompts
    assert BATCHING_BY_BACKEND.get("vllm", MIXED) == MIXED
    machines = [find_machine("h200", TINY_SHAPE, BF16, each) for each in ("sglang", "trtllm", "vllm", None)]
    assert [each.batching for each in machines] == [PREFILL_FIRST, WHOLE, MIXED, MIXED]


@pytest.mark.parametrize("wrong", [{"wait_steps": -1}, {"wait_share": 1.5}])
def test_impossible_waits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="wait_steps must be at least 0 and wait_share from 0 to 1"):
        Batching(**wrong)  # type: ignore[arg-type]  # one number fits either


def test_prompts_cannot_both_go_first_and_wait() -> None:
    with pytest.raises(ValueError, match="either prefill_first or wait_steps"):
        Batching(prefill_first=True, wait_steps=1)
