"""The law that carries over between GPUs: limits, what data sheets change, and fits that find what made the times."""

from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.transfer_law import (
    TransferParameters,
    TransferRows,
    calibrate_transfer_law,
    fit_transfer_law,
    launch_seconds,
    mean_parameters,
    on_compute_die,
    transfer_terms,
)
from lapidist.hardware.gpu.weight_rotation import WeightRotation

LAW = TransferParameters()


def rows(
    gpu: str, count: int = 300, seed: int = 0, rotation: WeightRotation = WeightRotation()
) -> TransferRows:
    generator = np.random.default_rng(seed)
    m, n, k = np.rint(2 ** generator.uniform(0, 13, count)), *(64.0 * generator.integers(1, 200, (2, count)))
    return TransferRows(m, n, k, load_data_sheet(gpu), gemm_format("bf16"), rotation)


def one(gpu: str, m: float, n: float, k: float, rotation: WeightRotation = WeightRotation()) -> TransferRows:
    sizes = (np.array([value]) for value in (m, n, k))
    return TransferRows(*sizes, load_data_sheet(gpu), gemm_format("bf16"), rotation)


@given(
    st.sampled_from(["a100", "h100", "b200", "l40s", "rtx-pro-6000", "rtx-4090"]),
    st.tuples(*[st.integers(0, 20)] * 3),
)
def test_times_are_finite_and_no_shorter_than_a_launch(gpu: str, octaves: tuple[int, int, int]) -> None:
    asked = one(gpu, *(2.0**octave for octave in octaves), WeightRotation(5, fills_l2=True))
    seconds = transfer_terms(asked, LAW).seconds
    assert np.isfinite(seconds).all()
    assert (seconds >= launch_seconds(asked.sheet, LAW)).all()


def test_kinds_of_dies() -> None:
    assert [
        on_compute_die(load_data_sheet(gpu)) for gpu in ("p100", "v100", "a100", "h100", "b200", "b300")
    ] == [True] * 6
    assert not any(
        on_compute_die(load_data_sheet(gpu)) for gpu in ("p4", "t4", "a40", "l40s", "rtx-pro-6000")
    )


def test_weights_called_in_turn_fall_out_of_l2() -> None:
    """Five copies of 18 MiB stay in an L40S's 96 MiB, four of 28 MiB do not."""
    rotation = WeightRotation(5, fills_l2=True)
    stay, fall = (transfer_terms(one("l40s", 4, n, 1024, rotation), LAW).memory[0] / n for n in (9216, 14336))
    assert fall > 1.8 * stay
    again = transfer_terms(one("l40s", 4, 14336, 1024), LAW).memory[0] / 14336
    assert again < 1.1 * stay


def test_power_limit_slows_large_gemms_less_than_in_proportion() -> None:
    full = one("h100", 8192, 8192, 8192)
    half = replace(full, sheet=full.sheet.model_copy(update={"tdp_watts": 350.0}))
    slower = (transfer_terms(half, LAW).seconds / transfer_terms(full, LAW).seconds)[0]
    assert 1.2 < slower < 1.5
    small = one("h100", 16, 4096, 4096)
    assert transfer_terms(replace(small, sheet=half.sheet), LAW).seconds == transfer_terms(small, LAW).seconds


def test_k_is_split_where_that_saves_more_than_the_sums_take() -> None:
    long = one("h100", 16, 1024, 16384)
    free, usual, dear = (
        transfer_terms(long, replace(LAW, split_seconds=seconds)) for seconds in (1e-9, 1.5e-6, 1e-3)
    )
    assert min(free.split[0], usual.split[0]) > 1
    assert dear.split[0] == 1
    assert free.seconds[0] < usual.seconds[0] < dear.seconds[0]
    assert transfer_terms(one("h100", 16, 1024, 256), LAW).split[0] == 1


def test_pairs_of_sms_wait_less_for_16_bit_operands() -> None:
    """B200 beside the same GPU with SMs that work alone."""
    paired = one("b200", 16, 64, 512)
    alone = replace(paired, sheet=paired.sheet.model_copy(update={"compute_capability": "9.0"}))
    waits = [transfer_terms(each, LAW).compute[0] for each in (paired, alone)]
    assert 0.75 <= waits[0] / waits[1] < 0.9
    eight_bit = [replace(each, form=gemm_format("fp8")) for each in (paired, alone)]
    waits = [transfer_terms(each, LAW).compute[0] for each in eight_bit]
    assert waits[0] == waits[1]


def test_fit_finds_the_law_that_made_the_times() -> None:
    truth = replace(LAW, launch_seconds=3.5e-6, power_cap=0.6, memory_efficiency=0.7)
    measured = rows("h100", 1500)
    seconds = transfer_terms(measured, truth).seconds
    fitted = fit_transfer_law(measured, seconds)
    assert fitted == fit_transfer_law(measured, seconds)
    others = rows("h100", 500, seed=1)
    ratio = transfer_terms(others, fitted).seconds / transfer_terms(others, truth).seconds
    assert np.abs(ratio - 1).mean() < 0.03
    assert (
        np.abs(transfer_terms(others, LAW).seconds / transfer_terms(others, truth).seconds - 1).mean() > 0.1
    )


def test_calibration_tells_a_factor_from_what_one_kind_of_gemm_shows() -> None:
    truth = replace(LAW, launch_seconds=4e-6)
    points, others = rows("a100", 50), rows("a100", 500, seed=1)
    seconds = 1.5 * transfer_terms(points, truth).seconds
    spread = np.full(len(astuple(LAW)), 0.2)
    found = calibrate_transfer_law(points, seconds, LAW, spread)
    ratio = transfer_terms(others, truth).seconds / transfer_terms(others, found).seconds
    assert np.std(np.log(ratio)) < 0.3 * np.std(
        np.log(transfer_terms(others, truth).seconds / transfer_terms(others, LAW).seconds)
    )
    assert np.exp(np.median(np.log(ratio))) == pytest.approx(1, abs=0.1)


def test_mean_is_of_those_that_tell() -> None:
    a100, l40s = load_data_sheet("a100"), load_data_sheet("l40s")
    mine = replace(LAW, launch_seconds=2e-6, compute_die_l2_share=0.2, graphics_die_l2_share=0.5)
    other = replace(LAW, launch_seconds=8e-6, compute_die_l2_share=0.8, graphics_die_l2_share=0.9)
    mean, spread = mean_parameters([(a100, mine), (l40s, other)], [1.0, 1.0])
    assert mean.launch_seconds == pytest.approx(4e-6)
    assert spread[0] == pytest.approx(np.log(2))
    assert (mean.compute_die_l2_share, mean.graphics_die_l2_share) == pytest.approx((0.2, 0.9))
    alone, _ = mean_parameters([(a100, mine)], [1.0])
    assert alone.graphics_die_l2_share == pytest.approx(LAW.graphics_die_l2_share)
