from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.workload import FilterStep, SequenceStep, Step, read_steps, write_steps
from lapidist.workload.step import FilterWork

_PAIRS = st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**9)), min_size=1, max_size=9)
_DURATIONS = st.one_of(st.none(), st.floats(0, 1e9))


@given(pairs=_PAIRS, duration=_DURATIONS, start=_DURATIONS)
def test_lines_round_trip(pairs: list[tuple[int, int]], duration: float | None, start: float | None) -> None:
    step = Step(
        tuple(SequenceStep(query, query + past) for query, past in pairs), len(pairs), duration, start
    )
    assert Step.from_json_line(step.to_json_line()) == step


_WORK = st.builds(
    lambda work, layer, query, past: FilterStep(work, layer, query, query + past),
    st.sampled_from(get_args(FilterWork)),
    st.integers(0, 99),
    st.integers(1, 10**6),
    st.integers(0, 10**6),
)


@given(filters=st.lists(_WORK, max_size=4), restored=st.lists(st.integers(1, 10**6), max_size=3))
def test_the_work_of_filters_round_trips(filters: list[FilterStep], restored: list[int]) -> None:
    sequences = () if filters or restored else (SequenceStep(1, 1),)
    step = Step(sequences, len(restored), filters=tuple(filters), restored=tuple(restored))
    assert Step.from_json_line(step.to_json_line()) == step


def test_files_round_trip_and_leave_nothing_behind(tmp_path: Path) -> None:
    steps = [Step((SequenceStep(3, 3),), 1), Step((SequenceStep(1, 4), SequenceStep(1, 9)), 2, 0.25)]
    write_steps(tmp_path / "steps.jsonl", steps)
    assert list(read_steps(tmp_path / "steps.jsonl")) == steps
    assert [path.name for path in tmp_path.iterdir()] == ["steps.jsonl"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    write_steps(path, [Step((SequenceStep(3, 3),), 1)])
    before = path.read_bytes()

    def broken():
        yield Step((SequenceStep(1, 1),), 1)
        raise RuntimeError("the run failed")

    with pytest.raises(RuntimeError):
        write_steps(path, broken())
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["steps.jsonl"]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "7",
        "{}",
        '{"sequences": 3, "logit_rows": 1}',
        '{"sequences": [], "logit_rows": 0}',
        '{"sequences": [[1]], "logit_rows": 1}',
        '{"sequences": [[2, 1]], "logit_rows": 1}',
        '{"sequences": [[0, 1]], "logit_rows": 1}',
        '{"sequences": [[true, 1]], "logit_rows": 1}',
        '{"sequences": [[1.0, 1]], "logit_rows": 1}',
        '{"sequences": [[1, 1]]}',
        '{"sequences": [[1, 1]], "logit_rows": 2}',
        '{"sequences": [[1, 1]], "logit_rows": -1}',
        '{"sequences": [[1, 1]], "logit_rows": true}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "duration_seconds": "fast"}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "duration_seconds": -1}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "duration_seconds": NaN}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "start_seconds": [0]}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "filters": 3}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "filters": [["layer", 0, 1]]}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "filters": [["sleep", 0, 1, 1]]}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "filters": [["layer", -1, 1, 1]]}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "filters": [["layer", 0, 2, 1]]}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "filters": [["layer", 0.0, 1, 1]]}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "restored": [0]}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "restored": [true]}',
        '{"sequences": [], "logit_rows": 2, "restored": [5]}',
        '{"sequences": [[1, 1]], "logit_rows": 1, "start_seconds": -1}',
        "[" * 100_000,
    ],
)
def test_bad_lines_name_file_and_line(line: str, tmp_path: Path) -> None:
    path = tmp_path / "steps.jsonl"
    path.write_text(Step((SequenceStep(3, 3),), 1).to_json_line() + "\n" + line + "\n")
    with pytest.raises(ValueError) as caught:
        list(read_steps(path))
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.jsonl: cannot be read"):
        list(read_steps(tmp_path / "none.jsonl"))
    with pytest.raises(ValueError, match="cannot be written"):
        write_steps(tmp_path / "absent" / "steps.jsonl", [])


def test_prompts_compute_more_than_one_token() -> None:
    decode, chunk = SequenceStep(1, 9), SequenceStep(2, 9)
    assert not Step((decode, decode), 2).has_prompt
    assert Step((decode, chunk), 2).has_prompt
