"""Time of a GEMM on a GPU: ``gemm_predictor("h200").predict(m, n, k)``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapidist.hardware.gpu.data_sheet import DataSheet, load_data_sheet
from lapidist.hardware.gpu.gemm_format import GEMMFormat, gemm_format
from lapidist.hardware.gpu.gemm_roofline import RooflineParameters, lower_bound_seconds, roofline_seconds

FloatArray = NDArray[np.float64]
_ANALYTICAL_SPREAD = 1.6  # 90 % of fitted GPUs' kernels are within this factor of the default roofline
_LARGEST = 2**24


@dataclass(frozen=True, eq=False)
class Prediction:
    """Times of GEMMs, element by element, in the shape that m, n and k broadcast to.

    Attributes
    ----------
    seconds : expected time of one call.
    low, high : a 90 % interval of it, in seconds.
    low_confidence : where the answer should not be trusted far; the interval is wider there.
    notes : why, one sentence per reason; empty where ``low_confidence`` is False everywhere.
    """

    seconds: FloatArray
    low: FloatArray
    high: FloatArray
    low_confidence: NDArray[np.bool_]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GemmPredictor:
    """Predicts one format on one GPU with the kernels of one backend version.

    Attributes
    ----------
    backend, version : whose measured kernels the answers are about; None where nothing was measured.
    """

    sheet: DataSheet
    format: GEMMFormat
    backend: str | None = None
    version: str | None = None
    parameters: RooflineParameters = RooflineParameters()

    def predict(self, m: ArrayLike, n: ArrayLike, k: ArrayLike) -> Prediction:
        """Times of ``output [m, n] = input [m, k] @ weight [n, k].T``; scalars and arrays broadcast.

        Raises
        ------
        ValueError : a size is not a whole number from 1 to 2**24.
        """
        m, n, k = np.broadcast_arrays(_sizes(m, "m"), _sizes(n, "n"), _sizes(k, "k"))
        bound = lower_bound_seconds(m, n, k, self.sheet, self.format)
        seconds = np.maximum(roofline_seconds(m, n, k, self.sheet, self.format, self.parameters), bound)
        low = np.maximum(seconds / _ANALYTICAL_SPREAD, bound)
        note = f"nothing measured on {self.sheet.name} in {self.format.name}: analytical model only"
        return Prediction(
            seconds, low, seconds * _ANALYTICAL_SPREAD, np.ones(seconds.shape, dtype=bool), (note,)
        )


def gemm_predictor(
    gpu: str | Path | DataSheet,
    dtype: str = "bf16",
    backend: str | None = None,
    version: str | None = None,
) -> GemmPredictor:
    """The predictor of a GPU and a format.

    Raises
    ------
    ValueError : unknown GPU or format, or the GPU does not compute in it.
    """
    sheet = gpu if isinstance(gpu, DataSheet) else load_data_sheet(gpu)
    form = gemm_format(dtype)
    sheet.operations_per_second(form.compute)
    return GemmPredictor(sheet, form, backend, version)


def _sizes(values: ArrayLike, name: str) -> FloatArray:
    sizes = np.asarray(values)
    if sizes.dtype.kind not in "iuf" or not ((sizes >= 1) & (sizes <= _LARGEST) & (sizes % 1 == 0)).all():
        raise ValueError(f"{name} must be a whole number from 1 to {_LARGEST}, got {values!r}"[:200])
    return sizes.astype(np.float64)
