"""Fits power from measured kernels: trees of ``ln(watts / limit)``, intervals from kernels of held-out groups."""

import lightgbm
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lapidist.hardware.gpu.power_predictor import LEVELS, FittedPower
from lapidist.hardware.gpu.splits import grouped_folds

FloatArray = NDArray[np.float64]
_PARAMETERS = {
    "objective": "l1",
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}


def fit_power(
    features: FloatArray,
    watts: ArrayLike,
    limit_watts: float,
    groups: ArrayLike,
    reliable: bool = True,
    trees: int = 300,
) -> FittedPower:
    """Fit kernels whose durations make their readings trustworthy; the same rows give the same bits.

    ``groups`` are what is new in a new model, (n, k) sites or head configurations: the intervals hold for unseen ones.

    Raises
    ------
    ValueError : fewer than 100 rows, or readings that are not positive.
    """
    target = np.asarray(watts, dtype=float)
    if len(target) < 100 or not (np.isfinite(target) & (target > 0)).all():
        raise ValueError("fitting power needs at least 100 kernels with positive readings")
    target = np.log(np.minimum(target, limit_watts) / limit_watts)
    predicted = np.empty(len(target))
    for split in grouped_folds(np.asarray(groups), 5):
        predicted[split.test] = _fit(features[split.train], target[split.train], trees).predict(
            features[split.test]
        )
    predicted = np.minimum(predicted, 0.0)
    error, level = np.abs(target - predicted), np.searchsorted(LEVELS, np.exp(predicted))
    overall = float(np.quantile(error, 0.9))
    widths = tuple(
        float(np.quantile(error[level == number], 0.9))
        if (level == number).sum() >= 30
        else max(overall, 0.2)
        for number in range(len(LEVELS) + 1)
    )
    return FittedPower(_fit(features, target, trees), widths, reliable)


def _fit(features: FloatArray, target: FloatArray, trees: int) -> lightgbm.Booster:
    return lightgbm.train(_PARAMETERS, lightgbm.Dataset(features, target), trees)
