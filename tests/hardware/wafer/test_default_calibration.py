"""The numbers that the calibration was made to reach: hold-outs of Tables 3 and 4 and of measured WSE-3 cycles."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lapidist.hardware.wafer.calibration import (
    Accuracy,
    Calibration,
    IdentifiabilityWarning,
    Measurement,
    accuracy,
    calibrate,
)
from lapidist.hardware.wafer.cost import CostModel
from lapidist.hardware.wafer.cost_constants import calibrated_constants
from lapidist.hardware.wafer.default_calibration import (
    fit_wse2_decode,
    fit_wse2_prefill,
    fit_wse3,
    wse2_start,
)
from lapidist.hardware.wafer.first_guess import first_guess
from lapidist.hardware.wafer.measured_cycles import KernelRun, read_kernel_runs
from lapidist.hardware.wafer.published import table_3_measurements, table_4_measurements

DATA = Path(__file__).parents[4] / "shared" / "data" / "wafer"
WSE3 = CostModel(calibrated_constants("wse-3"), 4)
WSE2 = CostModel(calibrated_constants("wse-2"), 4)

ROWS = range(12)  # LLaMA3-8B, LLaMA2-13B, CodeLLaMA-34B, QWen2-72B, three grids each
HALVES = {
    "even rows": [0, 2, 4, 6, 8, 10],
    "odd rows": [1, 3, 5, 7, 9, 11],
    "LLaMA3 and QWen2": [0, 1, 2, 9, 10, 11],
    "LLaMA2 and CodeLLaMA": [3, 4, 5, 6, 7, 8],
}
Fit = Callable[[CostModel, Sequence[Measurement]], Calibration]


def runs(name: str) -> list[KernelRun]:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is absent: measured WSE-3 cycles do not ship")
    return read_kernel_runs(DATA / name)


def held_out(fit: Fit, start: CostModel, rows: list[Measurement], train: list[int]) -> Accuracy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)  # priors hold what 12 rows leave open
        found = fit(start, [rows[i] for i in train])
    return accuracy(found.model, [rows[i] for i in ROWS if i not in train])


@pytest.mark.parametrize("half", HALVES)
def test_half_of_table_3_predicts_the_other(half: str) -> None:
    found = held_out(fit_wse2_prefill, decode_only(), table_3_measurements(), HALVES[half])
    assert found.mape <= 0.012
    assert found.largest <= 0.03


@pytest.mark.parametrize("half", HALVES)
def test_half_of_table_4_predicts_the_other(half: str) -> None:
    found = held_out(fit_wse2_decode, wse2_start(WSE3), table_4_measurements(), HALVES[half])
    assert found.mape <= 0.012
    assert found.largest <= 0.025


@pytest.mark.parametrize("model", range(4))
def test_three_models_predict_the_fourth(model: int) -> None:
    train = [i for i in ROWS if i // 3 != model]
    assert held_out(fit_wse2_prefill, decode_only(), table_3_measurements(), train).largest <= 0.03
    assert held_out(fit_wse2_decode, wse2_start(WSE3), table_4_measurements(), train).largest <= 0.03


def decode_only() -> CostModel:
    """WSE-2 as known from decode: Table 3 has told nothing yet."""
    before, decode = wse2_start(WSE3), fit_wse2_decode
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)
        return decode(before, table_4_measurements()).model


def test_whole_tables_in_sample() -> None:
    for rows in (table_3_measurements(), table_4_measurements()):
        assert accuracy(WSE2, rows).mape < 0.009
        assert accuracy(WSE2, rows).largest < 0.025


def test_twelve_rows_of_decode_cannot_tell_all_constants() -> None:
    with pytest.warns(IdentifiabilityWarning):
        fit_wse2_decode(wse2_start(WSE3), table_4_measurements())


@pytest.mark.parametrize(("train", "test"), [((16, 80), 144), ((16, 144), 80), ((80, 144), 16)])
def test_products_on_a_mesh_that_was_left_out(train: tuple[int, ...], test: int) -> None:
    rows = runs("wse3_meshgemm.csv")
    found = calibrate([run.measurement for run in rows if run.side in train])
    left = accuracy(found.model, [run.measurement for run in rows if run.side == test])
    assert left.mape <= 0.013
    assert left.largest <= 0.05


def test_small_meshes_predict_products_on_large_ones() -> None:
    """Trained to P = 144; with rows of P >= 400 in the file, they are the test."""
    rows = runs("wse3_meshgemm.csv")
    large = [run.measurement for run in rows if run.side >= 400]
    if not large:
        pytest.skip("the file has no rows of P >= 400")
    found = calibrate([run.measurement for run in rows if run.side <= 144])
    assert accuracy(found.model, large).mape <= 0.018
    assert accuracy(found.model, large).largest <= 0.07


def test_matrix_vector_products_on_meshes_that_were_left_out() -> None:
    rows = runs("wse3_meshgemv.csv")
    for side in (80, 144):
        small = [run.measurement for run in rows if run.side <= side]
        large = [run.measurement for run in rows if side < run.side <= 272]
        found = calibrate(small, gemv_start(), fixed=("gemv_mac",))
        assert accuracy(found.model, large).mape <= 0.005
        assert accuracy(found.model, large).largest <= 0.01


def test_small_meshes_predict_matrix_vector_products_on_large_ones() -> None:
    rows = runs("wse3_meshgemv.csv")
    large = [run.measurement for run in rows if run.side > 272]
    if not large:
        pytest.skip("the file has no rows of P > 272")
    small = [run.measurement for run in rows if run.side <= 272]
    found = calibrate(small, gemv_start(), fixed=("gemv_mac",))
    assert accuracy(found.model, large).mape <= 0.034
    assert accuracy(found.model, large).largest <= 0.06


def test_two_numbers_of_groups_predict_a_third_and_one_warns() -> None:
    rows = runs("wse3_meshgemv.csv")
    small = [run.measurement for run in rows if run.columns["G"] != 2]
    found = calibrate(small, gemv_start(), fixed=("gemv_mac",))
    assert accuracy(found.model, [run.measurement for run in rows if run.columns["G"] == 2]).mape <= 0.01
    with pytest.warns(IdentifiabilityWarning, match=r"hop.*stage"):
        calibrate([run.measurement for run in rows if run.columns["G"] == 8])


def gemv_start() -> CostModel:
    guess = first_guess()
    known = guess.constants.with_values({"gemv_mac": WSE3.constants.fma_mac}, "as fma_mac")
    return CostModel(known, guess.link_bytes_per_cycle)


def test_the_shipped_constants_are_those_of_the_data() -> None:
    gemm = [run.measurement for run in runs("wse3_meshgemm.csv") if run.side <= 144]
    gemv = [run.measurement for run in runs("wse3_meshgemv.csv") if run.side <= 272]
    model, products, vectors = fit_wse3(gemm, gemv)
    assert products.accuracy.mape < 0.012
    assert vectors.accuracy.mape < 0.005
    for name in {*products.fitted, *vectors.fitted}:
        assert getattr(WSE3.constants, name) == pytest.approx(getattr(model.constants, name), rel=0.02), name
