"""What a few measured points tell about a GPU that a model was not fitted on: a Gaussian process on the log error."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

FloatArray = NDArray[np.float64]
# Standard deviations of ln(measured / predicted) a priori: of the common factor, of its drift over sizes, and of noise.
_FACTOR = 0.5
_DRIFTS = (0.05, 0.1, 0.2)
_OCTAVES = (3.0, 6.0)
_NOISES = (0.02, 0.05, 0.1, 0.2)
_COVERAGE = 0.9
_FEW = 8  # fewer points fix a common factor only


@dataclass(frozen=True, eq=False)
class Correction:
    """A log factor over (m, n, k): a constant plus a smooth function of the logarithms of the sizes.

    Attributes
    ----------
    half_width : of the 90 % interval of ln(measured / corrected), from points predicted without themselves.
    stretch : of the uncorrected prediction's own 90 % interval, likewise; None with too few points to tell.
    """

    points: FloatArray
    weights: FloatArray
    drift: float
    octaves: float
    half_width: float
    stretch: float | None = None

    def log_factor(self, m: FloatArray, n: FloatArray, k: FloatArray) -> FloatArray:
        """What to add to the logarithm of the predicted time, [rows]."""
        covariance = _covariance(_positions(m, n, k), self.points, self.drift, self.octaves)
        return np.asarray(covariance @ self.weights)


def fit_correction(
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    log_errors: FloatArray,
    interval: tuple[FloatArray, FloatArray] | None = None,
    fitted: int = 0,
    smoothness: tuple[float, float, float] | None = None,
) -> Correction:
    """From ln(measured / predicted) at a few sizes; the smoothness is what explains points by the others best.

    Where it is known, ``smoothness`` gives it: deviation of the drift, octaves over which it varies, and noise.

    ``interval`` is how far the predictions' own ends lie below and above them, in log time; ``fitted`` is how many
    numbers were fitted to the same points before, by which their errors look too small.

    Raises
    ------
    ValueError : no points.
    """
    if not len(log_errors):
        raise ValueError("calibrating needs at least one measured GEMM")
    points = _positions(m, n, k)
    drifts = _DRIFTS if len(log_errors) >= _FEW else (0.0,)
    candidates = [smoothness] if smoothness else list(itertools.product(drifts, _OCTAVES, _NOISES))
    tried = [_fit(points, log_errors, *candidate, interval, fitted) for candidate in candidates]
    return min(tried, key=lambda result: result[0])[1]


def _fit(
    points: FloatArray,
    log_errors: FloatArray,
    drift: float,
    octaves: float,
    noise: float,
    interval: tuple[FloatArray, FloatArray] | None,
    fitted: int,
) -> tuple[float, Correction]:
    """Mean absolute leave-one-out error (Rasmussen and Williams, 2006, equation 5.12) and the correction."""
    prior = _covariance(points, points, drift, octaves) + noise**2 * np.eye(len(points))
    inverse = cho_solve(cho_factor(prior), np.eye(len(points)))
    weights = inverse @ log_errors
    left_out = weights / np.diag(inverse) * np.sqrt(len(points) / (len(points) - fitted))
    rank = min(1.0, _COVERAGE * (1 + 1 / len(points)))
    half_width = float(np.quantile(np.abs(left_out), rank)) if len(points) >= _FEW else 0.3
    stretch = None
    if interval is not None and len(points) >= _FEW:
        stretch = float(np.quantile(np.abs(left_out) / np.where(left_out < 0, *interval), rank))
    return float(np.abs(left_out).mean()), Correction(points, weights, drift, octaves, half_width, stretch)


def _positions(m: FloatArray, n: FloatArray, k: FloatArray) -> FloatArray:
    return np.log2(np.column_stack([m, n, k]))


def _covariance(a: FloatArray, b: FloatArray, drift: float, octaves: float) -> FloatArray:
    """Constant plus Matern 3/2."""
    distance = np.sqrt(3.0) * np.sqrt(np.square(a[:, None] - b[None]).sum(axis=-1)) / octaves
    return np.asarray(_FACTOR**2 + drift**2 * (1 + distance) * np.exp(-distance))
