"""How far GEMM predictions are from a measured table, group by group."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lapidist.hardware.gpu.accuracy import Accuracy, accuracy
from lapidist.hardware.gpu.gemm_predictor import GemmPredictor, Prediction, gemm_predictor
from lapidist.hardware.gpu.gemm_store import BUNDLED
from lapidist.hardware.gpu.measurements import KEY_COLUMNS
from lapidist.hardware.gpu.splits import few_points


@dataclass(frozen=True, eq=False)
class GroupValidation:
    """One measured (system, backend, version, dtype) beside what was predicted for it.

    Attributes
    ----------
    answered_by : the measurements behind the answers: GPU, backend and version.
    calibrated_on : rows given to the predictor beforehand; they are not judged.
    coverage : part of the measured times inside the 90 % interval.
    interval_ratio : median of the interval's upper over its lower end.
    """

    system: str
    backend: str
    version: str
    dtype: str
    answered_by: str
    calibrated_on: int
    errors: Accuracy
    coverage: float
    interval_ratio: float
    rows: pd.DataFrame
    predicted: Prediction

    def to_dict(self) -> dict[str, Any]:
        """All but the rows."""
        kept = {
            name: value for name, value in vars(self).items() if name not in ("rows", "predicted", "errors")
        }
        return {**kept, **asdict(self.errors)}


def validate_gemms(
    table: pd.DataFrame,
    gpu: str | None = None,
    backend: str | None = None,
    version: str | None = None,
    calibrate: int = 0,
    models: Path = BUNDLED,
) -> Iterator[GroupValidation]:
    """Predict every group of ``table`` and compare.

    A group's own GPU, backend and version are asked for if fitted, else the default of its GPU, unless ``gpu``,
    ``backend`` and ``version`` say otherwise. ``calibrate`` rows of each group, drawn at random, correct the predictor.

    Raises
    ------
    ValueError : a GPU without a data sheet, a backend or version that was not fitted, or too few rows to calibrate on.
    """
    for key, rows in table.groupby(list(KEY_COLUMNS), observed=True, sort=True):
        system, own_backend, own_version, dtype = map(str, key)
        if gpu or backend or version:
            predictor = gemm_predictor(gpu or system, dtype, backend, version, models)
        else:
            predictor = _predictor_of(system, dtype, own_backend, own_version, models)
        rows = rows.reset_index(drop=True)
        if calibrate:
            split = few_points(len(rows), calibrate)
            known, rows = split.apply(rows)
            predictor = predictor.calibrated(*(known[name].to_numpy() for name in ("m", "n", "k", "seconds")))
        yield _judge((system, own_backend, own_version, dtype), predictor, rows, calibrate)


def _predictor_of(system: str, dtype: str, backend: str, version: str, models: Path) -> GemmPredictor:
    try:
        return gemm_predictor(system, dtype, backend, version, models)
    except ValueError:
        return gemm_predictor(system, dtype, models=models)


def _judge(
    key: tuple[str, str, str, str], predictor: GemmPredictor, rows: pd.DataFrame, calibrated_on: int
) -> GroupValidation:
    predicted = predictor.predict(*(rows[name].to_numpy() for name in ("m", "n", "k")))
    measured = rows["seconds"].to_numpy(dtype=float)
    inside = (measured >= predicted.low) & (measured <= predicted.high)
    behind = (predictor.measured_on or "analytical model", predictor.backend, predictor.version)
    return GroupValidation(
        *key,
        answered_by=" ".join(part for part in behind if part and part != "any") or "any GPU",
        calibrated_on=calibrated_on,
        errors=accuracy(measured, predicted.seconds),
        coverage=float(inside.mean()),
        interval_ratio=float(np.median(predicted.high / predicted.low)),
        rows=rows,
        predicted=predicted,
    )
