from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.bundled import TINY
from lapidist.engine.engine import Engine, EngineConfig
from lapidist.engine.sampling_params import SamplingParams
from lapidist.models.config import ModelConfig
from lapidist.planner.arrival_cost import ArrivalCost
from lapidist.planner.simulation import ServingSettings, Simulation, SimulationResult
from lapidist.planner.step_cost import ExactStepCost, TabledStepCost
from lapidist.workload.step import Step, read_steps
from lapidist.workload.trace import Trace, TraceRequest
from tests.planner.machines import BF16, TINY_SHAPE, Metronome, Roofline
from tests.planner.random_traces import traces

ROOMY = ServingSettings(num_pages=4096, max_num_seqs=8, max_num_batched_tokens=64)


def simulate(
    trace: Trace,
    serving: ServingSettings = ROOMY,
    fast_forward: bool = True,
    speed: float = 1.0,
    concurrency: int | None = None,
) -> tuple[SimulationResult, list[Step]]:
    steps: list[Step] = []
    cost = TabledStepCost(Roofline(speed), TINY_SHAPE, BF16)
    run = Simulation(
        trace, serving, cost, concurrency=concurrency, fast_forward=fast_forward, on_step=steps.append
    )
    return run.run(), steps


def by_the_second(trace: Trace, serving: ServingSettings = ROOMY) -> SimulationResult:
    return Simulation(trace, serving, ExactStepCost(Metronome(), TINY_SHAPE, BF16)).run()


servings = st.builds(
    ServingSettings,
    num_pages=st.integers(14, 60),  # room for the longest request, and often for little more
    page_size=st.just(16),
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(6, 64),
    enable_prefix_caching=st.booleans(),
    shared_prefix=st.sampled_from([0.0, 0.5, 1.0]),
    arrival=st.sampled_from([ArrivalCost(), ArrivalCost(1e-3, 1e-5, 2e-3)]),
)


def test_one_request_by_hand() -> None:
    """A prompt of two chunks, then three tokens; each step takes a second."""
    result = by_the_second((TraceRequest(10.0, 100, 3),))
    [record] = result.records
    assert record.chunk_seconds == [12.0, 13.0, 14.0]
    assert (record.first_token_seconds, record.seconds_per_output_token) == (2.0, 1.0)
    assert (result.duration_seconds, result.busy_seconds, result.joules, result.steps) == (14, 4, 400, 4)


def test_an_arrival_waits_for_the_step_under_way() -> None:
    early, late = TraceRequest(0.0, 10, 6), TraceRequest(2.5, 10, 1)
    result = by_the_second((early, late))
    assert result.records[0].chunk_seconds == [1, 2, 3, 4, 5, 6]
    assert result.records[1].chunk_seconds == [4.0]
    assert result.peak_running == 2


def test_a_queue_forms_when_all_seats_are_taken() -> None:
    serving = replace(ROOMY, max_num_seqs=1)
    result = by_the_second((TraceRequest(0.0, 4, 3), TraceRequest(0.0, 4, 2)), serving)
    assert [record.chunk_seconds for record in result.records] == [[1, 2, 3], [4, 5]]


@settings(max_examples=60, deadline=None)
@given(traces, servings)
def test_nothing_is_lost(trace: Trace, serving: ServingSettings) -> None:
    result, steps = simulate(trace, serving)
    for request, record in zip(trace, result.records, strict=True):
        assert record.completed
        assert record.error is None
        assert (record.prompt_tokens, record.output_tokens) == (request.prompt_tokens, request.output_tokens)
        assert len(record.chunk_seconds) == request.output_tokens
        assert record.chunk_seconds == sorted(record.chunk_seconds)
        assert record.due_seconds == request.arrival_seconds
        assert record.first_token_seconds > 0
    computed = sum(step.tokens for step in steps) + result.prefix_hit_tokens
    # The last token of an answer is never put in; what was preempted is computed again.
    least = sum(request.prompt_tokens + request.output_tokens - 1 for request in trace)
    assert computed == least if result.preemptions == 0 else computed >= least
    assert sum(step.logit_rows for step in steps) == sum(request.output_tokens for request in trace)
    assert result.busy_seconds <= result.duration_seconds * (1 + 1e-9)


@settings(max_examples=80, deadline=None)
@given(traces, servings, st.sampled_from([None, 1, 3]))
def test_fast_forward_changes_nothing(
    trace: Trace, serving: ServingSettings, concurrency: int | None
) -> None:
    (fast, fast_steps), (slow, slow_steps) = (
        simulate(trace, serving, fast_forward, concurrency=concurrency) for fast_forward in (True, False)
    )
    assert [(step.sequences, step.logit_rows) for step in fast_steps] == [
        (step.sequences, step.logit_rows) for step in slow_steps
    ]
    assert fast.steps == slow.steps == len(slow_steps)
    assert (fast.preemptions, fast.prefix_hit_tokens) == (slow.preemptions, slow.prefix_hit_tokens)
    for one, other in zip(fast.records, slow.records, strict=True):
        assert one.chunk_seconds == pytest.approx(other.chunk_seconds, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(traces, st.floats(1.1, 20))
def test_a_faster_machine_finishes_an_offline_trace_earlier(trace: Trace, speed: float) -> None:
    offline = tuple(replace(request, arrival_seconds=0.0) for request in trace)
    slow, fast = simulate(offline)[0], simulate(offline, speed=speed)[0]
    assert fast.duration_seconds == pytest.approx(slow.duration_seconds / speed)
    for one, other in zip(fast.records, slow.records, strict=True):
        assert one.first_token_seconds < other.first_token_seconds


@settings(max_examples=40, deadline=None)
@given(traces)
def test_the_same_trace_gives_the_same_result(trace: Trace) -> None:
    assert simulate(trace) == simulate(trace)


def test_a_shared_prefix_is_computed_once() -> None:
    trace = tuple(TraceRequest(float(index), 128, 2) for index in range(4))
    apart, _ = simulate(trace)
    shared, steps = simulate(trace, replace(ROOMY, shared_prefix=0.5))
    assert apart.prefix_hit_tokens == 0
    assert shared.prefix_hit_tokens == 3 * 64
    assert sum(step.tokens for step in steps) == 4 * 129 - 3 * 64
    assert shared.records[1].first_token_seconds < apart.records[1].first_token_seconds


def test_a_request_that_never_fits_is_refused_and_the_others_are_served() -> None:
    trace = (TraceRequest(0.0, 500, 10), TraceRequest(0.0, 10, 10))
    result, _ = simulate(trace, replace(ROOMY, num_pages=8))
    assert "does not fit in the KV cache" in str(result.records[0].error)
    assert result.records[1].completed


def test_clients_send_the_next_request_when_they_have_their_answer() -> None:
    trace = tuple(TraceRequest(float(index), 4, length) for index, length in enumerate((3, 1, 2, 1)))
    cost = ExactStepCost(Metronome(), TINY_SHAPE, BF16)
    result = Simulation(trace, ROOMY, cost, concurrency=2).run()
    assert [record.due_seconds for record in result.records] == [0, 0, 1, 3]
    assert [record.chunk_seconds for record in result.records] == [[1, 2, 3], [1], [2, 3], [4]]
    assert result.peak_running == 2


def test_a_request_takes_its_time_to_be_seen() -> None:
    serving = replace(ROOMY, request_seconds=0.25)
    cost = ExactStepCost(Metronome(), TINY_SHAPE, BF16)
    trace = (TraceRequest(1.0, 4, 2), TraceRequest(1.5, 4, 1))
    open_loop = Simulation(trace, serving, cost).run()
    assert [record.chunk_seconds for record in open_loop.records] == [[2.25, 3.25], [3.25]]
    closed_loop = Simulation(trace, serving, cost, concurrency=1).run()
    assert [record.due_seconds for record in closed_loop.records] == [0, 2.25]
    assert closed_loop.records[1].chunk_seconds == [3.5]


def test_a_request_that_comes_holds_the_others_up() -> None:
    serving = replace(ROOMY, arrival=ArrivalCost(seconds=0.25, token_seconds=0.125, wake_seconds=0.5))
    cost = ExactStepCost(Metronome(), TINY_SHAPE, BF16)
    trace = (TraceRequest(0.0, 4, 3), TraceRequest(1.5, 2, 1), TraceRequest(10.0, 4, 1))
    records = Simulation(trace, serving, cost).run().records
    # Nobody slept before the first request; the second takes half a second as the second step ends.
    assert records[0].chunk_seconds == [1, 2, 3.5]
    assert records[1].chunk_seconds == [3.5]
    assert records[2].chunk_seconds == [11.5]


def test_of_requests_that_come_together_the_first_holds_nobody_up() -> None:
    serving = replace(ROOMY, arrival=ArrivalCost(seconds=0.25))
    cost = ExactStepCost(Metronome(), TINY_SHAPE, BF16)
    records = Simulation((TraceRequest(0.0, 4, 1),) * 3, serving, cost).run().records
    assert [record.chunk_seconds for record in records] == [[1.5]] * 3


def test_no_clients_are_refused() -> None:
    with pytest.raises(ValueError, match="concurrency must be at least 1"):
        Simulation((), ROOMY, ExactStepCost(Metronome(), TINY_SHAPE, BF16), concurrency=0)


def test_an_unordered_trace_is_refused() -> None:
    with pytest.raises(ValueError, match="in order of arrival"):
        simulate((TraceRequest(1.0, 1, 1), TraceRequest(0.0, 1, 1)))


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match="shared_prefix must be from 0 to 1"):
        ServingSettings(num_pages=1, shared_prefix=1.5)


@pytest.mark.parametrize("num_pages", [200, 30])
def test_the_steps_are_those_of_the_live_engine(tmp_path: Path, num_pages: int) -> None:
    """An offline trace through both; with few pages the engine preempts."""
    generator = torch.Generator().manual_seed(0)
    lengths = [(int(a), int(b)) for a, b in torch.randint(1, 120, (24, 2), generator=generator)]
    config = ModelConfig.from_directory(TINY)
    page_bytes = 2 * config.num_layers * config.num_kv_heads * config.head_dim * 16 * 2
    engine = Engine(
        EngineConfig(
            TINY,
            kv_cache_bytes=num_pages * page_bytes,
            max_model_len=256,
            max_num_seqs=8,
            max_num_batched_tokens=100,
            record=tmp_path / "steps.jsonl",
        )
    )
    assert engine.pool.num_pages == num_pages
    for index, (prompt, output) in enumerate(lengths):
        token_ids = torch.randint(3, config.vocab_size, (prompt,), generator=generator).tolist()
        params = SamplingParams(temperature=0, max_tokens=output, ignore_eos=True)
        engine.add(engine.prepare(str(index), {"prompt_token_ids": token_ids}, params))
    while engine.has_work():
        engine.step()
    engine.close()
    recorded = list(read_steps(tmp_path / "steps.jsonl"))

    trace = tuple(TraceRequest(0.0, prompt, output) for prompt, output in lengths)
    serving = ServingSettings(num_pages, max_num_seqs=8, max_num_batched_tokens=100)
    result, steps = simulate(trace, serving)
    assert (engine.scheduler.num_preemptions > 0) == (num_pages == 30)
    assert result.preemptions == engine.scheduler.num_preemptions
    assert [(step.sequences, step.logit_rows) for step in steps] == [
        (step.sequences, step.logit_rows) for step in recorded
    ]


def test_a_prompts_last_token_alone_in_its_chunk_needs_no_page_of_its_own() -> None:
    """Its page was handed out with the prompt's; taken twice, it would keep the second request out."""
    serving = replace(ROOMY, num_pages=14, enable_prefix_caching=False)
    trace = (TraceRequest(0.0, 129, 14), TraceRequest(0.0075, 69, 31))
    together, one_by_one = (simulate(trace, serving, fast_forward=fast) for fast in (True, False))
    assert together[1] == one_by_one[1]
    assert together[0].peak_running == 2
