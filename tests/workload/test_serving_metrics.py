from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.evaluation.serving.plots import plot_latency_cdf
from lapidist.workload.request_record import RequestRecord
from lapidist.workload.serving_metrics import Latency, Objective, summarize


def record(due: float, chunks: list[float], tokens: int | None = None, prompt: int = 10) -> RequestRecord:
    """A completed request whose answer ends with its last chunk."""
    return RequestRecord(
        due, prompt, len(chunks) if tokens is None else tokens, chunks, finished_seconds=chunks[-1]
    )


def test_one_request_by_hand() -> None:
    one = record(1.0, [1.5, 1.7, 2.1])
    assert one.first_token_seconds == 0.5
    assert one.seconds_per_output_token == pytest.approx(0.3)
    assert one.inter_token_seconds == pytest.approx([0.2, 0.4])
    assert one.end_to_end_seconds == pytest.approx(1.1)


def test_bundled_tokens_count_towards_the_pace() -> None:
    assert record(0.0, [1.0, 2.0], tokens=5).seconds_per_output_token == pytest.approx(0.25)
    assert record(0.0, [1.0]).seconds_per_output_token is None


def test_a_replay_by_hand() -> None:
    records = [
        record(0.0, [0.1, 0.2, 0.3]),
        record(1.0, [2.0, 2.1]),
        RequestRecord(2.0, 10, error="429 full"),
        RequestRecord(2.5, 10, error="429 full"),
        RequestRecord(3.0, 10, chunk_seconds=[3.5]),
    ]
    metrics = summarize(records, 4.0, Objective(ttft_seconds=0.5))
    assert (metrics.completed, metrics.failed, metrics.unfinished) == (2, 2, 1)
    assert metrics.errors == {"429 full": 2}
    assert (metrics.prompt_tokens, metrics.output_tokens) == (20, 5)
    assert metrics.requests_per_second == 0.5
    assert metrics.output_tokens_per_second == 1.25
    assert metrics.goodput_requests_per_second == 0.25
    assert metrics.objective_met == 0.25
    assert metrics.ttft is not None
    assert metrics.ttft.mean == pytest.approx(0.55)
    assert metrics.ttft.max == 1.0


def test_both_limits_of_an_objective_bind() -> None:
    slow_start, slow_pace = record(0.0, [2.0, 2.1]), record(0.0, [0.1, 1.1])
    both = Objective.of_milliseconds(1000, 500)
    assert both is not None
    assert not both.met_by(slow_start)
    assert not both.met_by(slow_pace)
    assert both.met_by(record(0.0, [0.1]))
    assert Objective(ttft_seconds=1.0).met_by(slow_pace)
    assert Objective(tpot_seconds=0.5).met_by(slow_start)
    assert not both.met_by(RequestRecord(0.0, 1, error="refused"))
    assert Objective.of_milliseconds(None, None) is None


def test_nothing_measured_is_not_a_crash() -> None:
    metrics = summarize([], 0.0, Objective(1.0))
    assert (metrics.completed, metrics.requests_per_second, metrics.ttft, metrics.objective_met) == (
        0,
        0,
        None,
        None,
    )


@given(st.lists(st.floats(0, 1e3), min_size=1))
def test_percentiles_are_numpys_and_in_order(seconds: list[float]) -> None:
    latency = Latency.of(seconds)
    assert latency is not None
    assert latency.p95 == pytest.approx(float(np.percentile(seconds, 95)))
    assert latency.p50 <= latency.p90 <= latency.p95 <= latency.p99 <= latency.max == max(seconds)


@given(
    arrivals=st.lists(
        st.tuples(st.floats(0, 100), st.lists(st.floats(0.001, 10), min_size=1, max_size=6)), min_size=1
    )
)
def test_parts_add_up(arrivals: list[tuple[float, list[float]]]) -> None:
    records = [record(due, list(due + np.cumsum(pauses))) for due, pauses in arrivals]
    for one in records:
        whole = one.first_token_seconds + sum(one.inter_token_seconds)
        assert whole == pytest.approx(one.end_to_end_seconds)
    metrics = summarize(records, 10.0, Objective(1e9, 1e9))
    assert metrics.objective_met == 1.0
    assert metrics.output_tokens == sum(len(pauses) for _, pauses in arrivals)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_plots_are_written_whole(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"latency{suffix}"
    plot_latency_cdf([record(0.0, [0.1, 0.2]), record(0.0, [0.3])], path, "title")
    assert path.stat().st_size > 1000
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_plots_that_cannot_be_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="written as"):
        plot_latency_cdf([record(0.0, [0.1])], tmp_path / "latency.gif", "title")
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_latency_cdf([RequestRecord(0.0, 1, error="x")], tmp_path / "latency.png", "title")
    assert not list(tmp_path.iterdir())
