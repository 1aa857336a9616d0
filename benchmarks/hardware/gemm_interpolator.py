"""The baseline of GEMM forecasts: interpolation of utilization between the nearest measured shapes.

What table-driven planners do: for each measured number of rows, the utilization (speed-of-light time over measured
time) of the nearest (n, k) sites, weighted by inverse squared distance in octaves; between measured numbers of rows,
linear in the logarithm. No model, nothing fitted.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gemm_format import GEMMFormat
from lapidist.hardware.gpu.gemm_roofline import gemm_bytes, gemm_flops

FloatArray = NDArray[np.float64]
_NEIGHBOURS = 6


@dataclass(frozen=True, eq=False)
class UtilizationInterpolator:
    """Measured utilization on a grid of sites [sites] and rows [m], NaN where not measured."""

    sheet: DataSheet
    form: GEMMFormat
    sites: FloatArray
    log_m: FloatArray
    log_utilization: FloatArray

    @staticmethod
    def fit(frame: pd.DataFrame, sheet: DataSheet, form: GEMMFormat) -> "UtilizationInterpolator":
        m, n, k, seconds = (frame[name].to_numpy(float) for name in ("m", "n", "k", "seconds"))
        values = np.log(_speed_of_light(m, n, k, sheet, form) / seconds)
        grid = pd.Series(values, index=pd.MultiIndex.from_arrays([n, k, m])).unstack()
        sites = np.log2(np.array(grid.index.to_list(), dtype=float))
        log_m = np.log2(grid.columns.to_numpy(float))
        return UtilizationInterpolator(sheet, form, sites, log_m, grid.to_numpy())

    def seconds(self, m: FloatArray, n: FloatArray, k: FloatArray) -> FloatArray:
        found = np.empty(len(m))
        frame = pd.DataFrame({"n": n, "k": k})
        for (site_n, site_k), rows in frame.groupby(["n", "k"]).indices.items():
            curve = self._curve(np.log2([site_n, site_k]))
            known = np.isfinite(curve)
            found[rows] = np.interp(np.log2(m[rows]), self.log_m[known], curve[known])
        return _speed_of_light(m, n, k, self.sheet, self.form) / np.exp(found)

    def _curve(self, site: FloatArray) -> FloatArray:
        """Log utilization over ``log_m`` at a site."""
        distance = np.square(self.sites - site).sum(axis=1)
        nearest = np.argsort(distance, kind="stable")[:_NEIGHBOURS]
        weights = 1 / np.maximum(distance[nearest], 1e-6)[:, None]
        values = self.log_utilization[nearest]
        known = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            return np.asarray(
                (np.where(known, values, 0) * weights).sum(axis=0) / (known * weights).sum(axis=0)
            )


def _speed_of_light(
    m: FloatArray, n: FloatArray, k: FloatArray, sheet: DataSheet, form: GEMMFormat
) -> FloatArray:
    compute = gemm_flops(m, n, k) / sheet.operations_per_second(form.compute)
    return np.maximum(compute, gemm_bytes(m, n, k, form) / sheet.memory_bytes_per_second)
