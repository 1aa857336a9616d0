"""Single-precision GEMM on one GPU: the wave law and what is left, a Gaussian process over scale-free features.

The law carries the scale, so that it may be asked about GEMMs far larger than the measured ones; the process learns the
few per cent that depend on layout and tile counts, and goes to zero away from measured shapes, its interval widening.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from lapidist.hardware.gpu.wave_law import WaveLaw, fit_wave_law, transposition_codes

FloatArray = NDArray[np.float64]

# Scales: octaves of M, N, K and CTAs; the last wave's fill; A, B transposed; beta. One term for neighbouring shapes,
# one for settings at any shape, one for how far the law may be off octaves of CTAs away from all measured ones.
_ANY = 1e3
_NEIGHBOURS = ConstantKernel(0.012**2) * RBF([1, 1, 1, 1, 0.3, 2.2, 2.2, 1.5])
_SETTINGS = ConstantKernel(0.004**2) * RBF([_ANY, _ANY, _ANY, _ANY, _ANY, 0.3, 0.3, 0.3])
_DISTANT = ConstantKernel(0.02**2) * RBF([_ANY, _ANY, _ANY, 3, _ANY, _ANY, _ANY, _ANY])
_REPEATABILITY = 0.004


@dataclass(frozen=True, eq=False)
class SgemmModel:
    """A fitted model; rows are shapes as :mod:`wave_law` describes them."""

    law: WaveLaw
    process: GaussianProcessRegressor

    @classmethod
    def fit(cls, start: WaveLaw, shapes: pd.DataFrame, seconds: FloatArray) -> Self:
        """Fit the law to ``seconds`` and the process to what it leaves; raises as ``fit_wave_law`` does."""
        law = fit_wave_law(start, shapes, seconds)
        process = GaussianProcessRegressor(
            _NEIGHBOURS + _SETTINGS + _DISTANT, alpha=_REPEATABILITY**2, optimizer=None
        )
        process.fit(_features(law, shapes), np.log(seconds) - law.log_seconds(shapes))
        return cls(law, process)

    def seconds(self, shapes: pd.DataFrame) -> FloatArray:
        """Expected time of each row."""
        return np.exp(self.law.log_seconds(shapes) + self.process.predict(_features(self.law, shapes)))

    def interval(self, shapes: pd.DataFrame, share: float = 0.9) -> tuple[FloatArray, FloatArray]:
        """Seconds between which ``share`` of the measurements are expected."""
        rest, deviation = self.process.predict(_features(self.law, shapes), return_std=True)
        middle = self.law.log_seconds(shapes) + rest
        reach = norm.ppf(0.5 + share / 2) * np.hypot(deviation, _REPEATABILITY)
        return np.exp(middle - reach), np.exp(middle + reach)


def _features(law: WaveLaw, shapes: pd.DataFrame) -> FloatArray:
    m, n, k = (shapes[column].to_numpy(dtype=float) for column in "MNK")
    ctas, code = law.tiling.ctas(m, n), transposition_codes(shapes)
    fill = ctas / law.tiling.sms / np.ceil(ctas / law.tiling.sms)
    beta = shapes["beta"].to_numpy(dtype=float) != 0
    return np.column_stack(
        [np.log2(m), np.log2(n), np.log2(k), np.log2(ctas), fill, code // 2, code % 2, beta]
    )
