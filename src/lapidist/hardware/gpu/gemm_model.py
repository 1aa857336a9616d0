"""A fitted GEMM model: an analytical model per GPU and backend, and trees on what it leaves, shared by a pool of them.

A pool is one number format on GPUs of one compute capability: they run kernels of the same kind, so that what was
measured with one backend steadies the estimate for another.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

import lightgbm
import numpy as np
from numpy.typing import NDArray

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gemm_features import gemm_features
from lapidist.hardware.gpu.gemm_format import GEMMFormat
from lapidist.hardware.gpu.gemm_roofline import (
    FloatArray,
    RooflineParameters,
    RooflineTerms,
    fit_roofline,
    gemm_flops,
    lower_bound_seconds,
    roofline_terms,
)
from lapidist.hardware.gpu.throttling import throttling
from lapidist.hardware.gpu.weight_rotation import WeightRotation

# Outside of the data the interval is this much wider at once, and by so much more with every octave.
_OUTSIDE = 1.7
_PER_OCTAVE = 0.8
_FLOOR = 0.8  # of the shortest time ever measured: nothing shorter is predicted
_LEAST_WIDTH = 0.005
_CALIBRATION_DRAW = 3e-3  # of a few dozen measurements, to what was fitted to thousands


class MeasuredSizes(Protocol):
    """Of a group, what limits and interval of its answers go by; see :class:`GEMMGroup`."""

    @property
    def smallest(self) -> tuple[float, ...]: ...
    @property
    def largest(self) -> tuple[float, ...]: ...
    @property
    def shortest_seconds(self) -> float: ...
    @property
    def widening(self) -> float: ...


@dataclass(frozen=True)
class GEMMGroup:
    """What is known of one format on one GPU with one backend version.

    Attributes
    ----------
    number : tells the groups of a pool apart in the trees' last column.
    smallest, largest : least and greatest log2 of m, n, k and m n k among the measurements.
    rotation : how many copies of a weight the measurement called in turn.
    shortest_seconds : the least time measured.
    widening : added to both ends of the quantile trees' interval of log time, so that 90 % are covered (conformal).
    errors : on (n, k) sites left out of a trial fit, by the names of :class:`~lapidist.hardware.gpu.accuracy.Accuracy`;
        ``coverage`` and ``interval_ratio`` besides.
    """

    gpu: str
    backend: str
    version: str
    dtype: str
    number: int
    parameters: RooflineParameters
    smallest: tuple[float, ...]
    largest: tuple[float, ...]
    shortest_seconds: float
    widening: float = 0.0
    rows: int = 0
    errors: dict[str, float] = field(default_factory=dict)
    rotation: WeightRotation = field(default_factory=WeightRotation)

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.gpu, self.dtype, self.backend, self.version)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(content: dict[str, Any]) -> "GEMMGroup":
        parameters = RooflineParameters(**content["parameters"])
        ranges = {name: tuple(content[name]) for name in ("smallest", "largest")}
        rotation = WeightRotation(**content["rotation"])
        return GEMMGroup(**{**content, **ranges, "parameters": parameters, "rotation": rotation})


@dataclass(frozen=True, eq=False)
class GEMMTrees:
    """The trees of a pool: the median of log(measured / analytical), and its 5 and 95 % quantiles around that."""

    residual: lightgbm.Booster
    low: lightgbm.Booster
    high: lightgbm.Booster


@dataclass(frozen=True, eq=False)
class GEMMModel:
    """One group with the trees of its pool; answers for the GPU of ``sheet`` in ``format``.

    Both may be others than the group's: a GPU like the measured one, or fp16 where bf16 was measured.

    Attributes
    ----------
    recalibrated : parameters of the analytical part by a few measurements on the GPU of ``sheet``; the trees keep to
        those that they were fitted beside.
    """

    sheet: DataSheet
    format: GEMMFormat
    group: GEMMGroup
    trees: GEMMTrees
    recalibrated: RooflineParameters | None = None

    def seconds(self, m: FloatArray, n: FloatArray, k: FloatArray) -> tuple[FloatArray, ...]:
        """Expected time, the ends of its 90 % interval, and octaves outside of the measured sizes, [rows] each."""
        terms = self._terms(m, n, k, self.group.parameters)
        columns = pool_columns(m, n, k, self.sheet, self.format, self.group, terms)
        expected = terms.seconds * np.exp(evaluate(self.trees.residual, columns))
        if self.recalibrated is not None:
            expected *= self._terms(m, n, k, self.recalibrated).seconds / terms.seconds
        expected *= throttling(
            gemm_flops(m, n, k),
            2.0 ** (self.group.largest[-1] + 1),
            self.sheet,
            self.format,
            self.group.parameters.power_cap,
        )
        return bounded(expected, m, n, k, self.sheet, self.format, self.group, self.trees, columns)

    def recalibrate(self, m: FloatArray, n: FloatArray, k: FloatArray, seconds: FloatArray) -> "GEMMModel":
        """The model with the analytical part refitted to a few measurements, drawn to what it was.

        A launch, an efficiency or a power limit other than foretold shows in all GEMMs of a kind, so that a few dozen
        tell it for sizes far from theirs. A factor common to all is no such thing and is left to the caller.
        """
        plain = replace(self, recalibrated=None)
        ratio = seconds / plain.seconds(m, n, k)[0]
        wanted = self._terms(m, n, k, self.group.parameters).seconds * ratio / np.median(ratio)
        parameters = fit_roofline(
            m, n, k, wanted, self.sheet, self.format, self.group.parameters, draw=_CALIBRATION_DRAW
        )
        return replace(plain, recalibrated=parameters)

    def _terms(
        self, m: FloatArray, n: FloatArray, k: FloatArray, parameters: RooflineParameters
    ) -> RooflineTerms:
        return roofline_terms(m, n, k, self.sheet, self.format, parameters)


def pool_columns(
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    sheet: DataSheet,
    form: GEMMFormat,
    group: GEMMGroup,
    terms: RooflineTerms,
) -> FloatArray:
    """What the trees see, [rows, features + 1]: the last column is the group."""
    features = gemm_features(m, n, k, sheet, form, terms, group.parameters.launch_seconds, group.rotation)
    return np.column_stack([features, np.full(len(m), float(group.number))])


def size_range(m: FloatArray, n: FloatArray, k: FloatArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Least and greatest log2 of m, n, k and their product."""
    logs = _log_sizes(m, n, k)
    return tuple(map(float, logs.min(axis=1))), tuple(map(float, logs.max(axis=1)))


def bounded(
    expected: FloatArray,
    m: FloatArray,
    n: FloatArray,
    k: FloatArray,
    sheet: DataSheet,
    form: GEMMFormat,
    group: MeasuredSizes,
    trees: GEMMTrees,
    columns: FloatArray,
) -> tuple[FloatArray, ...]:
    """An expectation held to the limits, the ends of its 90 % interval, and octaves outside of the measured sizes."""
    least = np.maximum(lower_bound_seconds(m, n, k, sheet, form), _FLOOR * group.shortest_seconds)
    expected = np.maximum(expected, least)
    octaves = _octaves_outside(m, n, k, group)
    stretch = np.where(octaves > 0, _OUTSIDE + _PER_OCTAVE * octaves, 1.0)
    below = np.maximum(group.widening - evaluate(trees.low, columns), _LEAST_WIDTH) * stretch
    above = np.maximum(group.widening + evaluate(trees.high, columns), _LEAST_WIDTH) * stretch
    return expected, np.maximum(expected * np.exp(-below), least), expected * np.exp(above), octaves


def _octaves_outside(m: FloatArray, n: FloatArray, k: FloatArray, group: MeasuredSizes) -> FloatArray:
    """How far a GEMM lies outside of the measured sizes, in octaves of its worst size; 0 inside."""
    logs = _log_sizes(m, n, k)
    above = logs - np.array(group.largest)[:, None]
    below = np.array(group.smallest)[:, None] - logs
    return np.maximum(np.maximum(above, below).max(axis=0), 0.0)


def _log_sizes(m: FloatArray, n: FloatArray, k: FloatArray) -> FloatArray:
    logs = np.log2(np.stack([m, n, k]))
    return np.vstack([logs, logs.sum(axis=0)])


def evaluate(booster: lightgbm.Booster, columns: FloatArray) -> NDArray[np.float64]:
    """One row after another of like sizes: they take the same way through the trees, which is twice as fast."""
    order = np.lexsort(columns.T[2::-1])
    found = np.empty(len(columns))
    found[order] = booster.predict(columns[order], num_threads=1)
    return found
