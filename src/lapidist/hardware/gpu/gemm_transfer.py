"""GEMMs on a GPU that nobody measured: the mean of the measured ones' laws, trees on what is left, honest intervals.

How far off it is for a new GPU is found by leaving each measured one out, together with its siblings.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.gemm_features import gemm_features
from lapidist.hardware.gpu.gemm_fit import GEMMRows, TreeSize, train_trees
from lapidist.hardware.gpu.gemm_format import GEMMFormat, gemm_format
from lapidist.hardware.gpu.gemm_model import GEMMTrees, bounded, evaluate, size_range
from lapidist.hardware.gpu.gemm_roofline import FloatArray, RooflineTerms
from lapidist.hardware.gpu.transfer_law import (
    TransferParameters,
    TransferRows,
    calibrate_transfer_law,
    fit_transfer_law,
    launch_seconds,
    mean_parameters,
    transfer_terms,
)
from lapidist.hardware.gpu.weight_rotation import WeightRotation, rotation_of

ANY = "any"
# Little: kernels of GPUs differ, and intervals of one GPU in detail say nothing of another.
TRANSFER_SIZE = TreeSize(trees=50, leaves=63, learning_rate=0.05, interval_trees=15, interval_leaves=7)
_ROWS_PER_GPU = 8000
_COVERAGE = 0.9
_ALONE = 0.3  # widening by what generations differ, as they do in bf16, where only one was measured
_ASSUMED = ("TRTLLM", "1.3.0")  # whose benchmark an answer is about unless asked otherwise


@dataclass(frozen=True)
class TransferGroup:
    """What is known of one format on any GPU.

    Attributes
    ----------
    parameters, spread : of the law, the mean over measured GPUs and the deviations of the logarithms between them.
    smallest, largest : least and greatest log2 of m, n, k and m n k among the measurements.
    shortest_seconds : the least time measured.
    widening : added to both ends of the interval trees' interval of log time.
    errors : on GPUs left out, a mean over them of each.
    rotation : how many copies of a weight the times that are answered are about.
    """

    dtype: str
    parameters: TransferParameters
    spread: tuple[float, ...]
    smallest: tuple[float, ...]
    largest: tuple[float, ...]
    shortest_seconds: float
    widening: float = 0.0
    rows: int = 0
    errors: dict[str, float] = field(default_factory=dict)
    rotation: WeightRotation = field(default_factory=WeightRotation)
    gpu: str = ANY
    backend: str = ANY
    version: str = ""

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.gpu, self.dtype, self.backend, self.version)

    def measured_by(self, backend: str, version: str) -> "TransferGroup":
        """The group for times as the benchmark of a backend takes them: with as many copies of a weight."""
        return replace(self, rotation=rotation_of(backend, version, self.dtype))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(content: dict[str, Any]) -> "TransferGroup":
        tuples = {name: tuple(content[name]) for name in ("spread", "smallest", "largest")}
        parameters = TransferParameters(**content["parameters"])
        rotation = WeightRotation(**content["rotation"])
        return TransferGroup(**{**content, **tuples, "parameters": parameters, "rotation": rotation})


@dataclass(frozen=True, eq=False)
class TransferModel:
    """Answers for the GPU of ``sheet`` in ``format``, as :class:`GEMMModel` does for one that was measured.

    Attributes
    ----------
    recalibrated : parameters of the law by a few measurements on that GPU; the trees keep to what they were fitted to.
    """

    sheet: DataSheet
    format: GEMMFormat
    group: TransferGroup
    trees: GEMMTrees
    recalibrated: TransferParameters | None = None

    def seconds(self, m: FloatArray, n: FloatArray, k: FloatArray) -> tuple[FloatArray, ...]:
        """Expected time, the ends of its 90 % interval, and octaves outside of the measured sizes, [rows] each."""
        rows = self._rows(m, n, k)
        terms = transfer_terms(rows, self.group.parameters)
        columns = _columns(rows, self.group.parameters, terms)
        expected = terms.seconds * np.exp(evaluate(self.trees.residual, columns))
        if self.recalibrated is not None:
            expected *= transfer_terms(rows, self.recalibrated).seconds / terms.seconds
        return bounded(expected, m, n, k, self.sheet, self.format, self.group, self.trees, columns)

    def recalibrate(
        self, m: FloatArray, n: FloatArray, k: FloatArray, seconds: FloatArray
    ) -> "TransferModel":
        """The model with the law refitted to a few measurements, held to the other GPUs' as far as they agree.

        A factor common to all times is left to the caller.
        """
        rows = self._rows(m, n, k)
        learned = np.exp(
            evaluate(
                self.trees.residual,
                _columns(rows, self.group.parameters, transfer_terms(rows, self.group.parameters)),
            )
        )
        found = calibrate_transfer_law(rows, seconds / learned, self.group.parameters, self.group.spread)
        return replace(self, recalibrated=found)

    def _rows(self, m: FloatArray, n: FloatArray, k: FloatArray) -> TransferRows:
        return TransferRows(m, n, k, self.sheet, self.format, self.group.rotation)


@dataclass(frozen=True, eq=False)
class FittedTransfer:
    """The model of one format for any GPU; ``groups`` has one element, as a pool's may have several."""

    name: str
    groups: tuple[TransferGroup, ...]
    trees: GEMMTrees

    def model(self, sheet: DataSheet, form: GEMMFormat | None = None) -> TransferModel:
        group = self.groups[0]
        return TransferModel(sheet, form or gemm_format(group.dtype), group, self.trees)


@dataclass(frozen=True, eq=False)
class _Donor:
    """A measured GPU with its own law."""

    rows: GEMMRows
    parameters: TransferParameters


@dataclass(frozen=True, eq=False)
class _LeftOut:
    """Errors of a model that did not see the GPU, log(measured / predicted), and what the interval may go by."""

    family: tuple[str, str]
    columns: FloatArray
    errors: FloatArray


def fit_transfer(
    members: Sequence[GEMMRows], size: TreeSize = TRANSFER_SIZE, judge: bool = True
) -> FittedTransfer:
    """One model of a format for any GPU, each generation of measured GPUs with the same weight.

    Without ``judge`` nothing is left out and the interval is that of the rows fitted on: for tests of the accuracy.

    Raises
    ------
    ValueError : no rows, or rows of several formats.
    """
    formats = {rows.dtype for rows in members}
    if len(formats) != 1:
        raise ValueError(f"a transfer model is of one format, got {len(formats)}")
    donors = [_donor(_sample(rows, number)) for number, rows in enumerate(members)]
    families = sorted({donor.rows.family for donor in donors})
    left_out = []
    for family in families if judge and len(families) > 1 else []:
        others = [donor for donor in donors if donor.rows.family != family]
        parameters, _, trees = _join(others, size)
        left_out += [_left_out(donor, parameters, trees) for donor in donors if donor.rows.family == family]
    parameters, spread, residual = _join(donors, size)
    left_out = left_out or [_left_out(donor, parameters, residual) for donor in donors]
    low, high = _ends(left_out, size)
    m, n, k, seconds = (np.concatenate(part) for part in zip(*(d.rows.sizes() for d in donors), strict=True))
    smallest, largest = size_range(m, n, k)
    group = TransferGroup(
        dtype=donors[0].rows.dtype,
        parameters=parameters,
        spread=spread,
        smallest=smallest,
        largest=largest,
        shortest_seconds=float(seconds.min()),
        widening=_widening(left_out, size) if len(families) > 1 else _ALONE * judge,
        rows=len(m),
        errors=_report([each.errors for each in left_out]),
    )
    return FittedTransfer(
        f"{ANY}-{group.dtype}", (group.measured_by(*_ASSUMED),), GEMMTrees(residual, low, high)
    )


def _sample(rows: GEMMRows, seed: int) -> GEMMRows:
    if len(rows.frame) <= _ROWS_PER_GPU:
        return rows
    chosen = np.random.RandomState(seed).permutation(len(rows.frame))[:_ROWS_PER_GPU]
    return replace(rows, frame=rows.frame.iloc[np.sort(chosen)].reset_index(drop=True))


def _donor(rows: GEMMRows) -> _Donor:
    return _Donor(rows, fit_transfer_law(_transfer_rows(rows), rows.sizes()[3]))


def _transfer_rows(rows: GEMMRows) -> TransferRows:
    m, n, k, _ = rows.sizes()
    _, backend, version = rows.key
    rotation = rotation_of(backend, version, rows.dtype)
    return TransferRows(m, n, k, rows.sheet, gemm_format(rows.dtype), rotation)


def _join(
    donors: Sequence[_Donor], size: TreeSize
) -> tuple[TransferParameters, tuple[float, ...], lightgbm.Booster]:
    """The mean of the laws, its spread, and trees on what each GPU's own law leaves.

    Beside a common law the trees would learn by how much each GPU is off it, which says nothing of another.
    """
    members = Counter(donor.rows.family for donor in donors)
    weights = [1.0 / members[donor.rows.family] for donor in donors]
    mean, spread = mean_parameters([(donor.rows.sheet, donor.parameters) for donor in donors], weights)
    parts = [_columns_and_target(donor.rows, donor.parameters) for donor in donors]
    columns, target = (np.concatenate(part) for part in zip(*parts, strict=True))
    return mean, spread, train_trees(columns, target, size.trees, size.leaves, size.learning_rate, "l1")


def _left_out(donor: _Donor, parameters: TransferParameters, trees: lightgbm.Booster) -> _LeftOut:
    columns, target = _columns_and_target(donor.rows, parameters)
    return _LeftOut(donor.rows.family, columns, target - evaluate(trees, columns))


def _columns_and_target(rows: GEMMRows, parameters: TransferParameters) -> tuple[FloatArray, FloatArray]:
    of_gpu = _transfer_rows(rows)
    terms = transfer_terms(of_gpu, parameters)
    return _columns(of_gpu, parameters, terms), np.log(rows.sizes()[3] / terms.seconds)


def _columns(rows: TransferRows, parameters: TransferParameters, terms: RooflineTerms) -> FloatArray:
    """What the trees see, [rows, features + 1]; the last column, that of the group, is constant."""
    launch = launch_seconds(rows.sheet, parameters)
    features = gemm_features(rows.m, rows.n, rows.k, rows.sheet, rows.form, terms, launch, rows.rotation)
    return np.column_stack([features, np.zeros(len(rows.m))])


def _ends(left_out: Sequence[_LeftOut], size: TreeSize) -> tuple[lightgbm.Booster, lightgbm.Booster]:
    """Trees of the 5 and 95 % quantiles of errors on GPUs left out, each generation with the same weight."""
    columns = np.concatenate([each.columns for each in left_out])
    errors = np.concatenate([each.errors for each in left_out])
    weight = _weights(left_out)
    low, high = (
        train_trees(
            columns,
            errors,
            size.interval_trees,
            size.interval_leaves,
            0.15,
            "quantile",
            alpha,
            weight / weight.mean(),
        )
        for alpha in ((1 - _COVERAGE) / 2, (1 + _COVERAGE) / 2)
    )
    return low, high


def _weights(left_out: Sequence[_LeftOut]) -> FloatArray:
    rows = Counter[tuple[str, str]]()
    for each in left_out:
        rows[each.family] += len(each.errors)
    return np.concatenate([np.full(len(each.errors), 1.0 / rows[each.family]) for each in left_out])


def _widening(left_out: Sequence[_LeftOut], size: TreeSize) -> float:
    """What interval trees of the other generations need to cover a generation's errors, over all 90 % (conformal).

    Halved: those trees know one generation less than the ones that are used, and more GPUs agree less by chance.
    """
    scores = []
    for each in left_out:
        low, high = _ends([other for other in left_out if other.family != each.family], size)
        scores.append(
            np.maximum(evaluate(low, each.columns) - each.errors, each.errors - evaluate(high, each.columns))
        )
    score, weight = np.concatenate(scores), _weights(left_out)
    order = np.argsort(score, kind="stable")
    total = np.cumsum(weight[order])
    return 0.5 * float(score[order][np.searchsorted(total, _COVERAGE * total[-1])])


def _report(errors: Sequence[FloatArray]) -> dict[str, float]:
    """Mean over GPUs of the mean and the median APE, each GPU left out of the fit."""
    apes: list[NDArray[np.float64]] = [np.abs(np.exp(-error) - 1) for error in errors]
    return {
        "mape": float(np.mean([ape.mean() for ape in apes])),
        "median_ape": float(np.mean([np.median(ape) for ape in apes])),
        "count": float(sum(map(len, apes))),
    }
