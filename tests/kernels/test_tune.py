"""Measuring: on a made-up clock, where every answer is known, and once for real."""

import dataclasses
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lapidist.kernels import dispatch_timing
from lapidist.kernels.dispatch import Implementation, Picker, WeightShape
from lapidist.kernels.dispatch_timing import WeightTimer, copy_count
from lapidist.kernels.tune import measure, row_grid, tune

FP32, BF16 = torch.float32, torch.bfloat16
Cost = Callable[[int, int], float]
"""Seconds for a weight's ``n`` and a number of rows."""


class Machine:
    """A clock that stands still except while an implementation runs."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.calls: list[tuple[str, int, int]] = []
        self.weights: list[int] = []

    def clock(self) -> float:
        return self.seconds

    def implementation(self, name: str, cost: Cost, max_rows: int | None = None) -> Implementation:
        def run(x: Tensor, weight: Tensor, out: Tensor) -> None:
            assert out.shape == (len(x), len(weight))
            assert x.is_contiguous()
            assert weight.is_contiguous()
            assert out.is_contiguous()
            assert x.dtype == weight.dtype == out.dtype
            self.calls.append((name, len(weight), len(x)))
            self.weights.append(weight.data_ptr())
            self.seconds += cost(len(weight), len(x))

        return Implementation(name, run, max_rows)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(dispatch_timing, "copy_count", lambda _: 5)
    return Machine()


def three(machine: Machine) -> tuple[Implementation, ...]:
    """GEMV up to 20 rows, flat GEMM, a library; where they cross depends on ``n``."""
    return (
        machine.implementation("gemv", lambda n, m: 1e-4 * n * m, max_rows=20),
        machine.implementation("flat", lambda n, m: 1e-4 * n * (3 + m / 8), max_rows=64),
        machine.implementation("library", lambda n, m: 1e-4 * (n * (3 + m / 40) + 7 * n**0.5)),
    )


def test_finds_what_brute_force_finds(machine: Machine) -> None:
    implementations = three(machine)
    beyond = ((1, "gemv"), (5, "flat"), (33, "library"))
    found = tune(
        implementations,
        [(8, 4), (64, 4)],
        [FP32],
        budget_seconds=1000,
        clock=machine.clock,
        beyond=beyond,
    )
    assert not found.measurements.unmeasured
    for n in (8, 64):
        costs = {
            "gemv": lambda m, n=n: n * m if m <= 20 else float("inf"),
            "flat": lambda m, n=n: n * (3 + m / 8),
            "library": lambda m, n=n: n * (3 + m / 40) + 7 * n**0.5,
        }
        picker = found.table.picker(n, 4, FP32)
        for m in range(1, 65):
            assert costs[picker(m)](m) <= 1.02 * min(cost(m) for cost in costs.values()), (n, m)
        assert picker(65) == picker(10**6) == "library"
        names = [name for _, name in picker.pieces]
        assert names == ["gemv", "flat", "library"]


def test_a_first_call_that_sets_up_does_not_count(machine: Machine) -> None:
    seen: set[int] = set()

    def cost(_: int, m: int) -> float:
        first = m not in seen
        seen.add(m)
        return 50.0 if first else 1.0

    slow_start = machine.implementation("slow start", cost)
    other = machine.implementation("other", lambda _, m: 2.0)
    found = measure([slow_start, other], [(8, 4)], [FP32], max_rows=4, clock=machine.clock)
    assert set(found.curves[WeightShape(8, 4, FP32)]["slow start"].values()) == {1.0}


def test_implementations_take_turns_on_weights_that_have_left_the_cache(machine: Machine) -> None:
    measure(three(machine), [(8, 4)], [FP32], max_rows=1, clock=machine.clock)
    names = [name for name, _, _ in machine.calls]
    assert names[:3] == names[3:6] == ["gemv", "flat", "library"]
    assert len(set(machine.weights[:5])) == 5
    assert machine.weights[5:10] == machine.weights[:5]


def test_the_hopeless_are_not_measured_again(machine: Machine) -> None:
    fast = machine.implementation("fast", lambda n, m: 2**-10)
    slow = machine.implementation("slow", lambda n, m: 1.0)
    timer = WeightTimer([fast, slow], WeightShape(8, 4, FP32), 4, machine.clock)
    times = timer.measure(4, seconds=100.0)
    assert (set(times["fast"]), times["slow"]) == ({2**-10}, [1.0, 1.0])
    names = [name for name, _, _ in machine.calls]
    assert names.count("slow") == 3
    assert names.count("fast") > 10


@pytest.mark.parametrize(("other", "disturbed_calls"), [(1.9, 3), (0.6, 1)])
def test_disturbances_are_measured_away(machine: Machine, other: float, disturbed_calls: int) -> None:
    """Of six calls three when the machine is slow, or one when it is faster than it is otherwise."""
    calls = 0

    def disturbed(_: int, m: int) -> float:
        nonlocal calls
        calls += 1
        return other if calls % 6 < disturbed_calls else 1.0

    only = [machine.implementation("a", disturbed)]
    found = measure(only, [(8, 4)], [FP32], max_rows=4, budget_seconds=1000, clock=machine.clock)
    times = found.curves[WeightShape(8, 4, FP32)]["a"].values()
    assert list(times) == pytest.approx([1.0] * len(times))


def test_who_comes_first_changes_from_round_to_round(machine: Machine) -> None:
    alike = [machine.implementation(name, lambda _, m: 1.0) for name in "abc"]
    WeightTimer(alike, WeightShape(8, 4, FP32), 1, machine.clock).measure(1, seconds=0.0)
    assert [name for name, _, _ in machine.calls] == list("abc" + "abc" + "bca" + "cab")


def test_what_runs_the_loops_of_another_is_not_measured_beside_it(machine: Machine) -> None:
    gemv, flat, library = three(machine)
    library = dataclasses.replace(library, min_rows=21)
    found = tune([gemv, flat, library], [(8, 4)], [FP32], budget_seconds=1000, clock=machine.clock)
    curves = found.measurements.curves[WeightShape(8, 4, FP32)]
    assert min(curves["library"]) > 20
    assert {1, 64} <= set(curves["flat"])
    assert {found.table.pick(8, 4, FP32, m) for m in range(1, 21)} <= {"gemv", "flat"}


def test_a_spent_budget_leaves_the_rest_unmeasured(machine: Machine) -> None:
    shapes = [(64, 4), (8, 4), (16, 4)]
    found = tune(three(machine), shapes, [FP32], budget_seconds=1e-9, clock=machine.clock)
    assert [str(shape) for shape in found.table.entries] == ["[8, 4] float32"]
    assert found.measurements.unmeasured == (WeightShape(16, 4, FP32), WeightShape(64, 4, FP32))
    # The two ends of the grid suffice for a table.
    assert {m for _, _, m in machine.calls} == {1, 64}


def test_a_budget_is_kept_roughly(machine: Machine) -> None:
    for budget in (0.5, 2.0):
        start = machine.seconds
        tune(
            three(machine),
            [(n, 4) for n in (8, 16, 24)],
            [FP32, BF16],
            budget_seconds=budget,
            clock=machine.clock,
        )
        assert machine.seconds - start <= 1.5 * budget


def test_an_unlucky_timing_is_found_out(machine: Machine) -> None:
    """What was disturbed makes an inflection point, and those are measured again."""
    disturbed = iter([1.0, 3.0, 3.0])

    def flat(_: int, m: int) -> float:
        return next(disturbed, 1.0) if m == 8 else 1.0

    implementations = [
        machine.implementation("flat", flat),
        machine.implementation("library", lambda n, m: 1.1),
    ]
    found = tune(implementations, [(8, 4)], [FP32], budget_seconds=700, clock=machine.clock)
    assert found.table.picker(8, 4, FP32).pieces[0] == (1, "flat")
    assert {found.table.pick(8, 4, FP32, m) for m in range(1, 65)} == {"flat"}


def test_progress_counts_the_grid(machine: Machine) -> None:
    told: list[tuple[str, int, int]] = []
    tune(
        three(machine),
        [(8, 4), (8, 4), (16, 4)],
        [FP32],
        max_rows=8,
        budget_seconds=1000,
        progress=lambda shape, done, total: told.append((str(shape), done, total)),
        clock=machine.clock,
    )
    assert [done for _, done, _ in told] == list(range(1, 13))
    assert {total for _, _, total in told} == {12}
    assert told[0][0] == "[8, 4] float32"


def test_an_implementation_may_lack_a_dtype(machine: Machine) -> None:
    gemv, flat, library = three(machine)
    gemv = Implementation("gemv", gemv.run, 20, frozenset({FP32}))
    found = tune([gemv, flat, library], [(8, 4)], [FP32, BF16], budget_seconds=1000, clock=machine.clock)
    assert "gemv" in found.measurements.curves[WeightShape(8, 4, FP32)]
    assert "gemv" not in found.measurements.curves[WeightShape(8, 4, BF16)]
    measured = [(start, name) for start, name in found.table.entries[WeightShape(8, 4, BF16)] if start <= 64]
    assert "gemv" not in {name for _, name in measured}


@pytest.mark.parametrize("max_rows", [1, 2, 3, 5, 64, 100])
def test_grid(max_rows: int) -> None:
    grid = row_grid(max_rows)
    assert grid[0] == 1
    assert grid[-1] == max_rows
    assert grid == sorted(set(grid))
    assert all(b <= 2 * a for a, b in pairwise(grid))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget_seconds": 0.0}, "budget"),
        ({"budget_seconds": -1.0}, "budget"),
        ({"budget_seconds": float("nan")}, "budget"),
        ({"max_rows": 0}, "max_rows"),
        ({"shapes": []}, "no weight shapes"),
        ({"dtypes": []}, "no weight shapes"),
        ({"implementations": []}, "no implementation"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    machine: Machine, changes: dict[str, object], message: str
) -> None:
    arguments = {"implementations": three(machine), "shapes": [(8, 4)], "dtypes": [FP32]} | changes
    for function in (tune, measure):
        with pytest.raises(ValueError, match=message):
            function(**arguments)  # type: ignore[arg-type,operator]


def test_a_weight_beyond_the_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="GiB are free"):
        WeightTimer([Implementation("a", print)], WeightShape(1 << 30, 1 << 20, FP32), 1)


def test_copies_exceed_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for cache in (1 << 20, 32 << 20, 96 << 20, 4 << 30):
        monkeypatch.setattr(dispatch_timing, "last_level_cache_bytes", lambda cache=cache: cache)
        for shape in (
            WeightShape(64, 64, FP32),
            WeightShape(3072, 2048, BF16),
            WeightShape(20000, 16000, FP32),
        ):
            total = copy_count(shape) * shape.weight_bytes
            assert total > min(max(4 * cache, 128 << 20), 1 << 30)
            assert copy_count(shape) == 1 or total <= (1 << 30) + shape.weight_bytes


@pytest.mark.usefixtures("machine")
def test_real_implementations() -> None:
    def library(x: Tensor, weight: Tensor, out: Tensor) -> None:
        out.copy_(F.linear(x, weight))

    def gemv(x: Tensor, weight: Tensor, out: Tensor) -> None:
        for row, into in zip(x, out, strict=True):
            torch.mv(weight, row, out=into)

    implementations = [Implementation("gemv", gemv, max_rows=4), Implementation("library", library)]
    found = tune(implementations, [(300, 200)], [FP32, BF16], max_rows=6)
    assert set(found.table.entries) == {WeightShape(300, 200, dtype) for dtype in (FP32, BF16)}
    for shape, inflections in found.table.entries.items():
        assert set(found.measurements.curves[shape]["gemv"]) <= {1, 2, 3, 4}
        assert Picker(inflections)(5) == "library"
