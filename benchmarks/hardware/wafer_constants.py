"""Fits the cost constants of WSE-3 and WSE-2 that ship with the package.

    python -m benchmarks.hardware.wafer_constants            # what they would be
    python -m benchmarks.hardware.wafer_constants --write    # store them

Data: cycles measured on a WSE-3 by users of the released kernels (public fork of WaferLLM, Apache-2.0), read from the
data folder beside the repository, and Tables 3 and 4 of the paper (arXiv 2502.04563).
"""

import argparse
import warnings
from pathlib import Path

import lapidist.hardware.wafer
from lapidist.hardware.wafer.calibration import Calibration, IdentifiabilityWarning
from lapidist.hardware.wafer.cost import CostModel
from lapidist.hardware.wafer.default_calibration import fit_wse2, fit_wse3
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.measured_cycles import read_kernel_runs
from lapidist.hardware.wafer.published import table_3_measurements, table_4_measurements
from lapidist.hardware.wafer.reproduction import largest_request_error

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "wafer"
SMALL_GEMM, SMALL_GEMV = 144, 272
"""Largest mesh side that the constants are fitted to; what is larger is for tests."""

_WSE3_SOURCE = "fitted to cycles measured on a WSE-3, public fork of WaferLLM (Apache-2.0)"
_WSE2_SOURCE = "fitted to arXiv 2502.04563, Tables 3 and 4"


def fitted_wse3(data: Path = DATA) -> tuple[CostModel, Calibration, Calibration]:
    """Constants of the WSE-3 and the fits of MeshGEMM and MeshGEMV."""
    gemm = [run.measurement for run in read_kernel_runs(data / "wse3_meshgemm.csv") if run.side <= SMALL_GEMM]
    gemv = [run.measurement for run in read_kernel_runs(data / "wse3_meshgemv.csv") if run.side <= SMALL_GEMV]
    return fit_wse3(gemm, gemv, _WSE3_SOURCE)


def fitted_wse2(wse3: CostModel) -> tuple[CostModel, Calibration, Calibration]:
    """Constants of the WSE-2 and the fits of prefill and decode; those not fitted are as on the WSE-3."""
    inherited = wse3.constants.with_values(
        {name: getattr(wse3.constants, name) for name in wse3.constants.sources}, "as WSE-3"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentifiabilityWarning)  # priors hold what 12 rows leave open
        start = CostModel(inherited, wse3.link_bytes_per_cycle)
        return fit_wse2(start, table_3_measurements(), table_4_measurements(), _WSE2_SOURCE)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="store the constants in the package")
    args = parser.parse_args()
    wse3, products, vectors = fitted_wse3()
    wse2, prefill, decode = fitted_wse2(wse3)
    error = largest_request_error(load_device("wse-2"), wse2)
    wse2 = CostModel(
        wse2.constants.with_error(error, "largest error of the eight requests of arXiv 2502.04563, Table 2"),
        wse2.link_bytes_per_cycle,
    )
    pointwise = {"pointwise_operation": wse2.constants.pointwise_operation}
    wse3 = CostModel(
        wse3.constants.with_values(pointwise, "as WSE-2").with_error(
            error, "as WSE-2: of the WSE-3 only products were measured, no whole models"
        ),
        wse3.link_bytes_per_cycle,
    )
    for label, fit in (
        ("MeshGEMM", products),
        ("MeshGEMV", vectors),
        ("prefill", prefill),
        ("decode", decode),
    ):
        print(
            f"{label}: {len(fit.accuracy.labels)} rows, MAPE {fit.accuracy.mape:.2%}, "
            f"largest {fit.accuracy.largest:.2%}, condition {fit.condition:.0f}"
        )
        for sentence in fit.warnings:
            print(f"  {sentence}")
    folder = Path(lapidist.hardware.wafer.__file__).parent / "constants"
    for name, model in (("wse-3", wse3), ("wse-2", wse2)):
        print(name, {each: round(getattr(model.constants, each), 4) for each in model.constants.sources})
        if args.write:
            path = folder / f"{name}.yaml"
            model.constants.write(
                path, f"Cost constants of {name}; see benchmarks/hardware/wafer_constants.py."
            )
            print(f"written to {path}")


if __name__ == "__main__":
    main()
