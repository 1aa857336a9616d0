"""Fits recover what made the measurements, and say what the measurements cannot tell."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.hardware.wafer.calibration import (
    IdentifiabilityWarning,
    Measurement,
    Prior,
    accuracy,
    calibrate,
)
from lapidist.hardware.wafer.cost import CostModel
from lapidist.hardware.wafer.cost_constants import calibrated_constants
from lapidist.hardware.wafer.first_guess import first_guess
from lapidist.hardware.wafer.gemm_algorithms import GEMMShape, mesh_gemm
from lapidist.hardware.wafer.gemv_algorithms import mesh_gemv

TRUTH = CostModel(calibrated_constants("wse-3"), 4)


def gemv_runs(sides: tuple[int, ...], groups: tuple[int, ...], noise: float = 0.0) -> list[Measurement]:
    """What TRUTH takes, off by up to ``noise``."""
    random = np.random.default_rng(0)
    tiles = [(1, 1), (1, 16), (16, 1), (16, 16)]
    found = []
    for side in sides:
        for count in groups:
            for k, n in tiles:
                program = ((mesh_gemv(side * k, side * n, side, side, groups=count), 1),)
                cycles = TRUTH.program_cost(program).cycles * (1 + noise * random.uniform(-1, 1))
                found.append(Measurement(f"P={side} G={count} {k}x{n}", program, cycles))
    return found


def gemm_runs(sides: tuple[int, ...]) -> list[Measurement]:
    found = []
    for side in sides:
        for m in (1, 4, 16):
            for k in (1, 2, 6, 16):
                for n in (1, 4, 16):
                    program = ((mesh_gemm(GEMMShape(side * m, side * k, side * n), side, side), 1),)
                    cycles = TRUTH.program_cost(program).cycles
                    found.append(Measurement(f"P={side} {m}x{k}x{n}", program, cycles))
    return found


def test_recovers_the_constants_of_gemv() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", IdentifiabilityWarning)
        found = calibrate(gemv_runs((16, 64, 144, 240), (2, 4, 8)), source="here")
    for name in found.fitted:
        assert getattr(found.model.constants, name) == pytest.approx(
            getattr(TRUTH.constants, name), rel=0.02
        ), name
        assert found.model.constants.sources[name] == "here"
    assert {"hop", "stage", "gemv_call", "gemv_mac"} <= set(found.fitted)
    assert "step" not in found.fitted
    assert found.model.constants.step == first_guess().constants.step
    assert found.accuracy.largest < 1e-3
    assert found.warnings == ()


def test_recovers_the_constants_of_gemm() -> None:
    found = calibrate(gemm_runs((8, 30, 64)))
    for name in ("step", "k_iteration", "fma_call", "fma_mac", "launch"):
        assert getattr(found.model.constants, name) == pytest.approx(
            getattr(TRUTH.constants, name), rel=0.05
        ), name
    assert found.accuracy.mape < 2e-3


def test_standard_errors_cover_the_truth() -> None:
    found = calibrate(gemv_runs((16, 64, 144, 240), (2, 4, 8), noise=0.01))
    for name in found.fitted:
        off = abs(getattr(found.model.constants, name) - getattr(TRUTH.constants, name))
        assert off < 4 * found.deviations[name] + 0.01, name


def test_one_number_of_groups_leaves_hop_and_stage_open() -> None:
    """Hops grow as P (1 + 1 / G) and stages as P / 2 G: with one G nothing tells them apart."""
    with pytest.warns(IdentifiabilityWarning, match=r"cannot tell .*hop.*stage"):
        found = calibrate(gemv_runs((16, 64, 144, 240), (8,)))
    assert found.condition > 1e6
    assert any({"hop", "stage"} <= set(group) for group in found.open_groups)
    assert np.isinf(found.deviations["hop"])
    assert found.accuracy.mape < 0.01, "what was measured is still described"


def test_one_mesh_leaves_the_launch_open() -> None:
    """The warning comes from the design matrix, whichever constants are involved."""
    with pytest.warns(IdentifiabilityWarning, match="launch"):
        calibrate(gemm_runs((30,)))


def test_absurd_cycles_leave_everything_open() -> None:
    runs = [replace(run, cycles=1e300) for run in gemv_runs((16,), (4,))]
    with pytest.warns(IdentifiabilityWarning, match="say too little"):
        found = calibrate(runs)
    assert found.condition == float("inf")
    assert set(found.open_groups) == {(name,) for name in found.fitted}


def test_a_prior_decides_what_the_measurements_leave_open() -> None:
    runs = gemv_runs((16, 64, 144, 240), (8,))
    with pytest.warns(IdentifiabilityWarning):
        found = calibrate(runs, priors={"hop": Prior(TRUTH.constants.hop, 0.001)})
    assert found.model.constants.stage == pytest.approx(TRUTH.constants.stage, rel=0.05)
    assert accuracy(found.model, gemv_runs((64, 240), (2, 4))).mape < 0.02


def test_fixed_constants_stay() -> None:
    start = replace(first_guess(), constants=first_guess().constants.with_values({"hop": 7.0}, "held"))
    found = calibrate(gemv_runs((64, 144), (2, 8)), start, fixed=("hop",))
    assert found.model.constants.hop == 7
    assert found.model.constants.sources["hop"] == "held"
    assert "hop" not in found.fitted


def test_a_few_wild_rows_do_not_bend_the_fit() -> None:
    runs = gemv_runs((16, 64, 144, 240), (2, 4, 8))
    wild = [replace(run, cycles=2 * run.cycles) if i in (3, 20) else run for i, run in enumerate(runs)]
    found = calibrate(wild)
    assert accuracy(found.model, [run for i, run in enumerate(runs) if i not in (3, 20)]).mape < 0.01


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 2), st.floats(0.5, 2))
def test_no_constant_falls_below_zero(first: float, second: float) -> None:
    runs = gemv_runs((16, 64), (2, 4))
    odd = [replace(run, cycles=run.cycles * (first if i % 2 else second)) for i, run in enumerate(runs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        found = calibrate(odd)
    assert all(getattr(found.model.constants, name) >= 0 for name in found.fitted)


def test_accuracy_in_numbers() -> None:
    run = gemv_runs((16,), (4,))[:2]
    slow = [replace(run[0], cycles=run[0].cycles / 1.1), replace(run[1], cycles=run[1].cycles / 0.9)]
    found = accuracy(TRUTH, slow)
    assert found.mape == pytest.approx(0.1)
    assert found.largest == pytest.approx(0.1)
    assert found.bias == pytest.approx(0, abs=1e-9)
    assert found.worst in found.labels


def test_bad_input_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="at least one measurement"):
        calibrate([])
    with pytest.raises(ValueError, match="no measurements"):
        accuracy(first_guess(), [])
    with pytest.raises(ValueError, match="unknown cost constant 'warp'"):
        calibrate(gemv_runs((16,), (4,)), fixed=("warp",))
    with pytest.raises(ValueError, match="above 0"):
        Measurement("x", (), 0.0)
