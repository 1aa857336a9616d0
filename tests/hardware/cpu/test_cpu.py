import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.hardware.cpu.cpu import CPU
from lapidist.hardware.cpu.operator_key import operator_key, operator_rows
from lapidist.hardware.cpu.profile import (
    AttentionPoint,
    CPUProfile,
    OperatorPoint,
    Overhead,
    read_profile,
    write_profile,
)
from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.operators import Attention
from tests.workload.test_lowering import PlainShape

SHAPE = PlainShape()
BF16 = Recipe.named("bf16")
FLOPS, BYTES, LAUNCH = 1e11, 1e10, 2e-6


def true_seconds(operator: Any) -> float:
    """A machine that follows a law of its own: half a kernel's arithmetic hides behind its traffic."""
    return LAUNCH + operator.flops / FLOPS + operator.minimum_bytes / BYTES


def true_attention(batch: int, query: int, visible: int) -> float:
    scores = query * (visible - query) + query * (query + 1) / 2
    return LAUNCH + batch * scores * 1e-9


def profile(watts: float | None = 100.0) -> CPUProfile:
    """As if that machine had been measured."""
    points = [
        OperatorPoint(
            operator_key(each), operator_rows(each), each.flops, each.minimum_bytes, true_seconds(each)
        )
        for rows in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
        for each in lower(SHAPE, BF16, Step((SequenceStep(rows, rows),), rows))
        if not isinstance(each, Attention)
    ]
    decodes = [(batch, 1, visible) for batch in (1, 8, 64) for visible in (1, 128, 1024)]
    chunks = [(1, query, query + before) for query in (2, 32, 512) for before in (0, 512, 1536)]
    attention = [AttentionPoint(*sizes, true_attention(*sizes)) for sizes in (*decodes, *chunks)]
    return CPUProfile(
        "machine",
        "model",
        {"num_layers": 3},
        "bf16",
        tuple(points),
        tuple(attention),
        Overhead(1e-4, 1e-5, 1e-6, request=2e-3),
        1 << 30,
        watts,
    )


def true_step(step: Step) -> float:
    operators = lower(SHAPE, BF16, step)
    plain = sum(each.count * true_seconds(each) for each in operators if not isinstance(each, Attention))
    parts = [
        true_attention(1, sequence.query_length, sequence.kv_length) - LAUNCH for sequence in step.sequences
    ]
    overhead = 1e-4 + 1e-5 * len(step.sequences) + 1e-6 * step.tokens
    return plain + SHAPE.num_layers * (LAUNCH + sum(parts)) + overhead


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 1024), max_size=30),
    st.lists(st.tuples(st.integers(2, 512), st.integers(0, 1500)), max_size=2),
)
def test_a_measured_machine_is_found_again(decodes: list[int], chunks: list[tuple[int, int]]) -> None:
    sequences = [SequenceStep(1, length) for length in decodes]
    sequences += [SequenceStep(query, query + before) for query, before in chunks]
    if not sequences:
        return
    step = Step(tuple(sequences), len(sequences))
    estimate = CPU(profile()).step(lower(SHAPE, BF16, step))
    assert estimate.seconds == pytest.approx(true_step(step), rel=0.1)
    assert sum(estimate.breakdown.values()) == pytest.approx(estimate.seconds)
    assert estimate.joules == pytest.approx(100 * estimate.seconds)


def test_at_measured_sizes_the_measurement_is_the_answer() -> None:
    machine = CPU(profile())
    for each in lower(SHAPE, BF16, Step((SequenceStep(64, 64),), 64)):
        if not isinstance(each, Attention):
            seconds = machine.step([each]).breakdown[each.name]
            assert seconds == pytest.approx(each.count * true_seconds(each))


def test_more_rows_never_take_less_time() -> None:
    machine = CPU(profile())
    seconds = [
        machine.step(lower(SHAPE, BF16, Step((SequenceStep(rows, rows),), 1))).seconds
        for rows in range(1, 1500, 7)
    ]
    assert all(later >= earlier * (1 - 1e-9) for earlier, later in itertools.pairwise(seconds))


def test_what_was_not_measured_is_answered_with_a_note() -> None:
    machine = CPU(profile())
    known = lower(SHAPE, BF16, Step((SequenceStep(1, 1),), 1))
    assert machine.step(known).low_confidence == ()
    other = lower(replace(SHAPE, hidden_size=80), BF16, Step((SequenceStep(1, 1),), 1))
    notes = machine.step(other).low_confidence
    assert any("qkv_proj" in note and "was not measured" in note for note in notes)
    far = machine.step(lower(SHAPE, BF16, Step((SequenceStep(5000, 5000),), 1)))
    assert any("up to 512 rows only" in note for note in far.low_confidence)


def test_long_contexts_cool_the_caches() -> None:
    """Up to a limit, and half of it where they fill the last level."""
    machine = CPU(replace(profile(), overhead=Overhead(0, 0, 0, cold=1e-3), cache_bytes=1 << 20))

    def cold(kv_length: int) -> float:
        return machine.step(lower(SHAPE, BF16, Step((SequenceStep(1, kv_length),), 1))).breakdown["step"]

    attention = [
        each for each in lower(SHAPE, BF16, Step((SequenceStep(1, 1000),), 1)) if isinstance(each, Attention)
    ]
    token_bytes = sum(each.count * each.kv_read_bytes for each in attention) / 1000
    filling = round((1 << 20) / token_bytes)
    assert cold(1) < 2e-5
    assert cold(filling) == pytest.approx(5e-4, rel=0.01)
    assert 9.9e-4 < cold(1000 * filling) < 1e-3


def test_a_measurement_that_others_disturbed_says_so() -> None:
    step = lower(SHAPE, BF16, Step((SequenceStep(1, 1),), 1))
    assert CPU(replace(profile(), others_cores=0.05)).step(step).low_confidence == ()
    [note] = CPU(replace(profile(), others_cores=0.8)).step(step).low_confidence
    assert "0.8 cores busy" in note


def test_energy_is_unknown_without_watts() -> None:
    assert math.isnan(CPU(profile(watts=None)).step([]).joules)


def test_a_step_of_nothing_is_its_overhead() -> None:
    assert CPU(profile()).step([]).seconds == pytest.approx(1e-4)


def test_a_cpu_has_no_other_devices() -> None:
    with pytest.raises(ValueError, match="no other devices"):
        CPU(profile()).step(lower(SHAPE, BF16, Step((SequenceStep(1, 1),), 1), tensor_parallel=2))


def test_a_profile_is_read_as_it_was_written(tmp_path: Path) -> None:
    for each in (profile(), profile(watts=None)):
        write_profile(each, tmp_path / "cpu.json")
        assert read_profile(tmp_path / "cpu.json") == each


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.update(schema=99),
        lambda content: content.pop("overhead"),
        lambda content: content.update(operators=[]),
        lambda content: content["operators"][0].update(rows=0),
        lambda content: content["operators"][0].update(seconds=float("nan")),
        lambda content: content["operators"][0].update(key="gemm"),
        lambda content: content["attention"][0].update(batch=True),
        lambda content: content["overhead"].update(step=-1),
        lambda content: content["overhead"].pop("request"),
        lambda content: content.update(others_cores="none"),
        lambda content: content.update(shape=[1]),
    ],
)
def test_a_broken_profile_is_refused(tmp_path: Path, spoil: Callable[[dict[str, Any]], Any]) -> None:
    file = tmp_path / "cpu.json"
    write_profile(profile(), file)
    content = json.loads(file.read_text())
    spoil(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"cpu\.json: not a CPU profile"):
        read_profile(file)


@pytest.mark.parametrize("text", ["", "[]", "{", '"text"'])
def test_what_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpu.json").write_text(text)
    with pytest.raises(ValueError, match=r"cpu\.json"):
        read_profile(tmp_path / "cpu.json")


def test_a_grid_with_holes_is_refused() -> None:
    whole = profile()
    with pytest.raises(ValueError, match="must be a full grid"):
        CPU(replace(whole, attention=whole.attention[1:]))
