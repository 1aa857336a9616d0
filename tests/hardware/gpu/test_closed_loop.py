import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.estimate import Estimate
from lapidist.hardware.gpu.closed_loop import Traffic, chunk_ends, closed_loop
from lapidist.workload.step import Step


def _cost(step: Step) -> Estimate:
    """10 ms a step and 0.1 ms a prompt token, at 100 W."""
    prompt = sum(sequence.query_length for sequence in step.sequences if sequence.query_length > 1)
    seconds = 0.01 + 1e-4 * prompt
    return Estimate(seconds, 100 * seconds, "compute")


def test_one_client_waits_for_its_prompt_and_then_decodes_alone() -> None:
    found = closed_loop(_cost, Traffic(1, 1000, 100))
    assert found.tpot_seconds == pytest.approx(0.01)
    assert found.ttft_seconds == pytest.approx(0.1 + 0.015, rel=0.1)
    assert found.joules_per_token == pytest.approx(1.0 + 10.0 / 100)


def test_other_clients_prompts_lengthen_the_answers() -> None:
    found = closed_loop(_cost, Traffic(11, 1000, 100))
    assert found.tpot_seconds == pytest.approx(0.01 + 10 * 0.1 / 100)


def test_bursts_shorten_answers_and_lengthen_the_wait() -> None:
    steady, burst = (closed_loop(_cost, Traffic(64, 1000, 500), synchrony=share) for share in (0.0, 1.0))
    assert burst.tpot_seconds < steady.tpot_seconds
    assert burst.ttft_seconds > 2 * steady.ttft_seconds


def test_a_full_cache_makes_clients_queue() -> None:
    free = closed_loop(_cost, Traffic(64, 1000, 200))
    full = closed_loop(_cost, Traffic(64, 1000, 200), cache_tokens=11_000)
    assert free.running == 64
    assert full.running == 10
    assert full.ttft_seconds > 10 * free.ttft_seconds
    assert full.tokens_per_second < free.tokens_per_second
    with pytest.raises(ValueError, match="fewer than one request"):
        closed_loop(_cost, Traffic(1, 1000, 200), cache_tokens=1000)


@given(prompt=st.integers(1, 100_000), step_tokens=st.integers(1, 20_000))
def test_chunks_cover_the_prompt_once(prompt: int, step_tokens: int) -> None:
    chunks = chunk_ends(prompt, step_tokens)
    assert sum(chunk.query_length for chunk in chunks) == prompt
    assert chunks[-1].kv_length == prompt
    assert max(chunk.query_length for chunk in chunks) <= step_tokens


@pytest.mark.parametrize("traffic", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_empty_traffic_is_refused(traffic: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Traffic(*traffic)
