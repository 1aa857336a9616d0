"""The search for inflection points against brute force, on made-up timings."""

import itertools
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lapidist.kernels.dispatch import Inflections, Picker
from lapidist.kernels.dispatch_search import (
    extended,
    fewest_switches,
    search,
    two_inflections,
)

NAMES = ("gemv", "flat", "library")
seconds = st.floats(1e-6, 1e-2)
Curves = dict[str, dict[int, float]]


@st.composite
def curves(draw: st.DrawFn, values: st.SearchStrategy[float] = seconds, max_rows: int = 6) -> Curves:
    """Any timings; all but the last implementation end somewhere."""
    rows = draw(st.integers(1, max_rows))
    ends = [draw(st.integers(0, rows)) for _ in NAMES[:-1]] + [rows]
    return {
        name: {m: draw(values) for m in range(1, end + 1)}
        for name, end in zip(NAMES, ends, strict=True)
        if end
    }


def spread_out(found: Inflections, rows: int) -> list[str]:
    return [Picker(found)(m) for m in range(1, rows + 1)]


def fastest(timings: Curves, rows: int) -> set[str]:
    times = {name: curve[rows] for name, curve in timings.items() if rows in curve}
    return {name for name in times if times[name] == min(times.values())}


@given(curves(max_rows=40))
def test_without_tolerance_it_is_the_fastest_everywhere(timings: Curves) -> None:
    rows = len(timings["library"])
    picked = spread_out(search(timings, tolerance=0), rows)
    assert all(name in fastest(timings, m) for m, name in enumerate(picked, 1))


def brute_force(timings: Curves, tolerance: float) -> tuple[int, float, int]:
    """The least cost (switches, loss, minus the sum of switch positions) over all admissible choices."""
    rows = range(1, len(timings["library"]) + 1)
    best = [min(curve[m] for curve in timings.values() if m in curve) for m in rows]
    allowed = [
        [name for name, curve in timings.items() if m in curve and curve[m] <= best[m - 1] * (1 + tolerance)]
        for m in rows
    ]
    return min(cost(timings, choice) for choice in itertools.product(*allowed))


def cost(timings: Curves, choice: tuple[str, ...]) -> tuple[int, float, int]:
    loss, switches = 0.0, []
    for m, name in enumerate(choice, 1):
        times = [curve[m] for curve in timings.values() if m in curve]
        loss += math.log(timings[name][m] / min(times))
        if m > 1 and choice[m - 2] != name:
            switches.append(m)
    return len(switches), loss, -sum(switches)


@settings(max_examples=300)
@given(curves(st.sampled_from([1.0, 1.005, 1.01, 1.02, 1.03, 1.3])), st.sampled_from([0.0, 0.02, 0.5]))
def test_ties_and_noise_cost_the_fewest_switches(timings: Curves, tolerance: float) -> None:
    chosen = fewest_switches(timings, tolerance)
    assert cost(timings, tuple(chosen.values())) == brute_force(timings, tolerance)
    rows = len(timings["library"])
    assert spread_out(search(timings, tolerance=tolerance), rows) == list(chosen.values())


def test_a_tie_keeps_the_previous_winner() -> None:
    timings = {"gemv": {1: 1.0, 2: 2.0, 3: 3.0, 4: 9.0}, "flat": {1: 2.0, 2: 2.0, 3: 3.0, 4: 3.0}}
    assert search(timings, tolerance=0) == ((1, "gemv"), (4, "flat"))


def test_noise_is_no_island() -> None:
    flat = dict.fromkeys(range(1, 9), 1.0)
    timings = {"flat": flat, "library": flat | {3: 0.99, 4: 0.985, 6: 0.99}}
    assert search(timings) == ((1, "library"),), "never slower, so it needs no switch"
    timings["library"] |= {1: 1.5, 8: 1.5}
    assert search(timings) == ((1, "flat"),)


@st.composite
def straight_lines(draw: st.DrawFn) -> Curves:
    """Fixed cost and cost per row, as GEMV, flat GEMM and a library have: whoever starts better climbs faster.

    No two are ever equal: ties have tests of their own.
    """
    fixed = sorted(draw(st.lists(st.integers(0, 2000), min_size=3, max_size=3, unique=True)))
    slopes = sorted(draw(st.lists(st.integers(1, 400), min_size=3, max_size=3, unique=True)), reverse=True)
    return {
        name: {m: a + part + b * m for m in range(1, 65)}
        for name, a, b, part in zip(NAMES, fixed, slopes, (0.25, 0.5, 0.625), strict=True)
    }


@given(straight_lines())
def test_equals_the_search_of_the_paper(timings: Curves) -> None:
    """M1 is the first M at which B beats A; going on from there, M2 is the first at which C beats B."""
    a, b, c = (timings[name] for name in NAMES)
    m1 = next((m for m in range(1, 65) if b[m] < a[m]), 65)
    m2 = next((m for m in range(m1, 65) if c[m] < b[m]), 65)
    # Where C beats A before B does, the paper's order of winners is not the truth.
    assume(all(c[m] >= a[m] for m in range(1, m1)))
    paper = ["gemv" if m < m1 else "flat" if m < m2 else "library" for m in range(1, 65)]
    found = search(timings, tolerance=0)
    assert spread_out(found, 64) == paper
    pair = two_inflections(found, NAMES)
    assert pair is not None
    assert [65 if point is None else point for point in pair] == [m1, m2]


@given(straight_lines(), st.sets(st.integers(2, 63), max_size=6))
def test_bisection_finds_on_a_grid_what_brute_force_finds_everywhere(
    timings: Curves, inner: set[int]
) -> None:
    grid = {1, 64, *inner}
    measured = dict.fromkeys(grid)

    def measure(rows: int) -> dict[str, float]:
        assert rows not in measured, "nothing is measured twice"
        measured[rows] = None
        return {name: curve[rows] for name, curve in timings.items()}

    coarse = {name: {m: curve[m] for m in grid} for name, curve in timings.items()}
    picked = spread_out(search(coarse, measure, tolerance=0), 64)
    switches = [m for m in range(2, 65) if picked[m - 2] != picked[m - 1]]
    assert all(picked[m - 1] in fastest(timings, m) for m in measured)
    assert len(measured) <= len(grid) + 6 * (1 + len(switches))
    # Lines cross once, so two neighbours with the same winner have no other winner between them.
    assert all(picked[m - 1] in fastest(timings, m) for m in range(1, 65))


@given(straight_lines())
def test_interpolation_of_straight_lines_is_exact(timings: Curves) -> None:
    two = {name: timings[name] for name in ("gemv", "library")}
    coarse = {name: {m: curve[m] for m in (1, 64)} for name, curve in two.items()}
    assert search(coarse, tolerance=0) == search(two, tolerance=0)


def test_the_time_to_measure_may_run_out() -> None:
    answers = iter([{"gemv": 32.0, "flat": 8.0}, None])
    coarse = {"gemv": {1: 1.0, 64: 64.0}, "flat": {1: 8.0, 64: 8.0}}
    assert search(coarse, lambda _: next(answers)) == ((1, "gemv"), (9, "flat"))


def test_an_implementation_that_ends_is_not_used_beyond() -> None:
    timings = {"gemv": {1: 1.0, 4: 2.0}, "library": {1: 5.0, 4: 5.0, 64: 6.0}}
    assert search(timings) == ((1, "gemv"), (5, "library"))


@pytest.mark.parametrize("timings", [{}, {"gemv": {}}, {"gemv": {1: 0.0}}, {"gemv": {1: math.inf}}])
def test_timings_must_be_there_and_positive(timings: Curves) -> None:
    with pytest.raises(ValueError, match=r"timing"):
        search(timings)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (((1, "gemv"), (5, "flat"), (33, "library")), (5, 33)),
        (((1, "flat"), (16, "library")), (1, 16)),
        (((1, "gemv"), (4, "library")), (4, 4)),
        (((1, "gemv"),), (None, None)),
        (((1, "library"), (4, "gemv")), None),
        (((1, "else"),), None),
    ],
)
def test_the_papers_two_points(found: Inflections, expected: tuple[int | None, int | None] | None) -> None:
    assert two_inflections(found, NAMES) == expected


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (64, ((1, "library"), (3, "flat"), (65, "library"))),
        (8, ((1, "library"), (3, "flat"), (33, "library"))),
        (3, ((1, "library"), (3, "flat"), (4, "gemv"), (5, "flat"), (33, "library"))),
    ],
)
def test_beyond_what_was_measured_the_default_holds(last: int, expected: Inflections) -> None:
    default = ((1, "gemv"), (5, "flat"), (33, "library"))
    assert extended(((1, "library"), (3, "flat")), last, default) == expected
