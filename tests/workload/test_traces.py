import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.workload.azure_trace import read_azure_trace
from lapidist.workload.generated_trace import generate_trace, with_arrivals
from lapidist.workload.length_distribution import Empirical, Fixed, LogNormal, Uniform, parse_length
from lapidist.workload.sharegpt_trace import read_sharegpt_trace
from lapidist.workload.trace import (
    TraceRequest,
    read_trace,
    scale_rate,
    time_window,
    within_context,
    write_trace,
)

AZURE = Path(__file__).parents[3] / "shared" / "data" / "azure_llm_2023_conversation.csv.gz"
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"

requests = st.builds(
    TraceRequest,
    arrival_seconds=st.floats(0, 1e6),
    prompt_tokens=st.integers(1, 10**6),
    output_tokens=st.integers(1, 10**6),
    prompt=st.one_of(st.none(), st.text(st.characters(codec="utf-8"))),
)


def words(text: str) -> int:
    return len(text.split())


@given(trace=st.lists(requests, max_size=5))
def test_jsonl_round_trips(trace: list[TraceRequest], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    write_trace(path, trace)
    assert read_trace(path) == tuple(trace)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[1, 2, 3]",
        '{"arrival_seconds": 0, "prompt_tokens": 1}',
        '{"arrival_seconds": "soon", "prompt_tokens": 1, "output_tokens": 1}',
        '{"arrival_seconds": -1, "prompt_tokens": 1, "output_tokens": 1}',
        '{"arrival_seconds": Infinity, "prompt_tokens": 1, "output_tokens": 1}',
        '{"arrival_seconds": 0, "prompt_tokens": 0, "output_tokens": 1}',
        '{"arrival_seconds": 0, "prompt_tokens": 1.5, "output_tokens": 1}',
        '{"arrival_seconds": 0, "prompt_tokens": 1, "output_tokens": 1, "prompt": 3}',
    ],
)
def test_bad_jsonl_rows_name_file_and_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n" + line)
    with pytest.raises(ValueError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}, line 2: ")


def test_azure_trace_matches_its_published_size() -> None:
    if not AZURE.exists():
        pytest.skip("the Azure trace is not beside this checkout")
    trace = read_azure_trace(AZURE)
    assert len(trace) == 19366
    assert trace[0] == TraceRequest(0.0, 374, 44)
    assert trace[1].arrival_seconds == pytest.approx(4.3145790, abs=1e-9)
    assert all(a.arrival_seconds <= b.arrival_seconds for a, b in itertools.pairwise(trace))
    assert round(float(np.mean([request.prompt_tokens for request in trace]))) == 1155


def test_azure_rows_are_sorted_and_zones_understood(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        HEADER + "2024-05-10 00:00:01.5000000+00:00,7,8\r\n\n2024-05-10 02:00:00+02:00,5,6\n", newline=""
    )
    assert read_azure_trace(path) == (TraceRequest(0.0, 5, 6), TraceRequest(1.5, 7, 8))


@pytest.mark.parametrize(
    "row",
    [
        "2023-11-16 18:15:46,1",
        "2023-11-16 18:15:46,1,2,3",
        "yesterday,1,2",
        "2023-13-16 18:15:46,1,2",
        "2023-11-16 18:15:46,0,2",
        "2023-11-16 18:15:46,1,-2",
        "2023-11-16 18:15:46,1,2.5",
        "2023-11-16 18:15:46,1,",
        "2023-11-16 18:15:46,1,²",
    ],
)
def test_bad_azure_rows_name_file_and_line(row: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "2023-11-16 18:15:46.6805900,374,44\n" + row + "\n").encode()))
    with pytest.raises(ValueError) as caught:
        read_azure_trace(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"time,prompt,output\n"),
        ("b.csv", b""),
        ("c.csv", b"\xff\xfe\x00"),
        ("d.csv.gz", b"plain text"),
        ("e.csv.gz", gzip.compress(HEADER.encode() * 999)[:40]),
    ],
)
def test_files_that_are_no_azure_trace_are_one_sentence(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_azure_trace(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@given(
    rows=st.lists(st.tuples(st.integers(0, 10**10), st.integers(1, 9999), st.integers(1, 9999)), min_size=1)
)
def test_azure_arrivals_are_exact_to_the_tick(
    rows: list[tuple[int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("azure") / "trace.csv"
    lines = []
    for ticks, prompt, output in rows:  # of 100 ns, within an hour
        seconds, fraction = divmod(ticks, 10**7)
        lines.append(
            f"2023-11-16 18:{seconds // 60:02d}:{seconds % 60:02d}.{fraction:07d},{prompt},{output}\n"
        )
    path.write_text(HEADER + "".join(lines))
    first = min(ticks for ticks, _, _ in rows)
    expected = sorted((ticks - first) / 1e7 for ticks, _, _ in rows)
    assert [request.arrival_seconds for request in read_azure_trace(path)] == pytest.approx(
        expected, abs=1e-9
    )


def test_sharegpt_takes_the_first_exchange(tmp_path: Path) -> None:
    path = tmp_path / "sharegpt.json"
    path.write_text(
        json.dumps(
            [
                {
                    "id": "kept",
                    "conversations": [
                        {"from": "system", "value": "be brief"},
                        {"from": "human", "value": "one two three"},
                        {"from": "gpt", "value": "four five"},
                        {"from": "human", "value": "more"},
                    ],
                },
                {"conversations": [{"from": "gpt", "value": "no question"}]},
                {"conversations": []},
                {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho ho"}]},
                {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}]},
            ]
        )
    )
    assert read_sharegpt_trace(path, words) == (
        TraceRequest(0.0, 3, 2, "one two three"),
        TraceRequest(0.0, 1, 2, "hi"),
    )


@pytest.mark.parametrize(
    "content",
    [
        "[",
        "{}",
        "[3]",
        "[{}]",
        '[{"conversations": "x"}]',
        '[{"conversations": [3]}]',
        '[{"conversations": [{"from": "human"}]}]',
        '[{"messages": [{"role": "user", "content": ["x"]}]}]',
        "[" * 100_000,
    ],
)
def test_bad_sharegpt_files_are_one_sentence(content: str, tmp_path: Path) -> None:
    path = tmp_path / "sharegpt.json"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        read_sharegpt_trace(path, words)
    assert str(caught.value).startswith(str(path))


@given(seed=st.integers(0, 2**32), rate=st.floats(0.01, 1e4), variation=st.floats(0, 5))
def test_generated_traces_are_reproducible_and_in_range(seed: int, rate: float, variation: float) -> None:
    lengths = Uniform(3, 9), LogNormal(50, 1.0, maximum=80)
    trace = generate_trace(20, rate, *lengths, seed=seed, variation=variation)
    assert trace == generate_trace(20, rate, *lengths, seed=seed, variation=variation)
    assert all(3 <= request.prompt_tokens <= 9 and 1 <= request.output_tokens <= 80 for request in trace)
    assert all(a.arrival_seconds <= b.arrival_seconds for a, b in itertools.pairwise(trace))


@pytest.mark.parametrize("variation", [0.0, 0.5, 1.0, 3.0])
def test_gaps_have_the_wanted_mean_and_variation(variation: float) -> None:
    trace = generate_trace(40_000, 8.0, Fixed(1), Fixed(1), seed=11, variation=variation)
    gaps = np.diff([0.0, *(request.arrival_seconds for request in trace)])
    assert gaps.mean() == pytest.approx(1 / 8, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, abs=0.1)


def test_poisson_gaps_are_exponential() -> None:
    trace = generate_trace(40_000, 1.0, Fixed(1), Fixed(1), seed=5)
    gaps = np.sort(np.diff([0.0, *(request.arrival_seconds for request in trace)]))
    distance = np.abs(np.arange(1, len(gaps) + 1) / len(gaps) - (1 - np.exp(-gaps))).max()
    assert distance < 1.95 / len(gaps) ** 0.5  # Kolmogorov-Smirnov at one in a thousand, for a fixed seed


def test_another_length_keeps_the_arrivals() -> None:
    one, other = (generate_trace(9, 1.0, Fixed(1), length, seed=3) for length in (Fixed(1), Uniform(1, 9)))
    assert [r.arrival_seconds for r in one] == [r.arrival_seconds for r in other]


def test_an_infinite_rate_is_all_at_once() -> None:
    assert {r.arrival_seconds for r in generate_trace(9, float("inf"), Fixed(1), Fixed(1))} == {0.0}


def test_log_normal_has_its_median_and_empirical_its_values() -> None:
    rng = np.random.default_rng(0)
    assert np.median(LogNormal(200, 0.7).sample(rng, 20_000)) == pytest.approx(200, rel=0.03)
    assert set(Empirical((4, 8)).sample(rng, 100)) == {4, 8}


@given(trace=st.lists(requests), factor=st.floats(0.1, 10))
def test_scaling_and_windows(trace: list[TraceRequest], factor: float) -> None:
    scaled = scale_rate(trace, factor)
    assert [r.arrival_seconds * factor for r in scaled] == pytest.approx([r.arrival_seconds for r in trace])
    halves = time_window(trace, 0, 1000), time_window(trace, 1000, 1e7)
    assert len(halves[0]) + len(halves[1]) == len(trace)
    assert all(0 <= request.arrival_seconds < 1000 for request in halves[0])


def test_requests_beyond_the_context_are_left_out() -> None:
    trace = (TraceRequest(0.0, 90, 10), TraceRequest(0.0, 90, 11), TraceRequest(1.0, 1, 1))
    assert within_context(trace, 100) == (trace[0], trace[2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [("128", Fixed(128)), ("uniform:1:9", Uniform(1, 9)), ("lognormal:300:0.8", LogNormal(300.0, 0.8))],
)
def test_lengths_by_their_short_form(text: str, expected: object) -> None:
    assert parse_length(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "x", "uniform:9:1", "uniform:1", "lognormal:0:1", "lognormal:9:nan", "1:2"]
)
def test_bad_lengths_say_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match="uniform:LOW:HIGH"):
        parse_length(text)


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        with_arrivals((), rate)
    with pytest.raises(ValueError, match="rate"):
        scale_rate((), rate)


def test_other_impossible_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 request"):
        generate_trace(0, 1.0, Fixed(1), Fixed(1))
    with pytest.raises(ValueError, match="variation"):
        with_arrivals((), 1.0, variation=-1)
    with pytest.raises(ValueError, match="at least one observed"):
        Empirical(())
