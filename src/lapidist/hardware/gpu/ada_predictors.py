"""Those that the Ada study's rows are predicted by: the published forest, plain baselines, and ours."""

from collections.abc import Callable

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lapidist.hardware.gpu.ada_data import CONFIGURATION
from lapidist.hardware.gpu.contention import OneBitPower, shared_seconds
from lapidist.hardware.gpu.data_sheet import DataSheet
from lapidist.hardware.gpu.paper_recipe import PaperForests
from lapidist.hardware.gpu.sgemm_model import SgemmModel
from lapidist.hardware.gpu.wave_law import WaveLaw, fit_wave_law, start_law

FloatArray = NDArray[np.float64]
Predictor = Callable[[pd.DataFrame, pd.DataFrame], FloatArray]
"""From train and test rows to a target's predictions for the test rows, in the target's unit."""


def paper_forest(target: str) -> Predictor:
    """The published recipe."""
    return lambda train, test: PaperForests.fit(train, (target,)).predict(test, target)


def median_per_shape(target: str) -> Predictor:
    """The median of the same shape in the train part, for splits that repeat shapes."""

    def predict(train: pd.DataFrame, test: pd.DataFrame) -> FloatArray:
        table = train.groupby(["M", "N", "K"])[target].median().rename("looked_up")
        return test.join(table, on=["M", "N", "K"])["looked_up"].fillna(train[target].median()).to_numpy()

    return predict


def boosted_trees(train: pd.DataFrame, test: pd.DataFrame) -> FloatArray:
    """Boosted trees on sizes and beta, as they come, fitted to the logarithm of the time."""
    columns = ["M", "N", "K", "beta"]
    model = lightgbm.LGBMRegressor(n_estimators=300, num_threads=1, verbose=-1)
    model.fit(train[columns], np.log(train["runtime_ms"]))
    return np.exp(np.asarray(model.predict(test[columns])))


def scaled_roofline(sheet: DataSheet) -> Predictor:
    """The textbook roofline times the train part's median ratio to it."""

    def bound(rows: pd.DataFrame) -> FloatArray:
        m, n, k = (rows[column].to_numpy(dtype=float) for column in "MNK")
        memory = 4 * (m * k + k * n + m * n) / sheet.memory_bytes_per_second
        return 1e3 * np.maximum(2 * m * n * k / sheet.operations_per_second("fp32"), memory)

    def predict(train: pd.DataFrame, test: pd.DataFrame) -> FloatArray:
        return float(np.median(train["runtime_ms"] / bound(train))) * bound(test)

    return predict


def wave_law(start: WaveLaw) -> Predictor:
    """The law without its process, in milliseconds."""

    def predict(train: pd.DataFrame, test: pd.DataFrame) -> FloatArray:
        law = fit_wave_law(start, train, train["runtime_ms"].to_numpy() / 1e3)
        return 1e3 * np.exp(law.log_seconds(test))

    return predict


def ours(start: WaveLaw) -> Predictor:
    """The wave law and its process, in milliseconds."""

    def predict(train: pd.DataFrame, test: pd.DataFrame) -> FloatArray:
        return 1e3 * SgemmModel.fit(start, train, train["runtime_ms"].to_numpy() / 1e3).seconds(test)

    return predict


def ours_on_pool(target: str, sheet: DataSheet) -> Predictor:
    """Fitted on the train part's uncontended runs; a foreign job in the test part is allowed for by its bit."""

    def predict(train: pd.DataFrame, test: pd.DataFrame) -> FloatArray:
        foreign = test["foreign_job"].to_numpy()
        power = OneBitPower.fit(train["foreign_job"].to_numpy(), train["power_w"].to_numpy()).watts(foreign)
        if target == "power_w":
            return power
        clean = train[train["uncontended"]].groupby(CONFIGURATION)["runtime_ms"].median().reset_index()
        model = SgemmModel.fit(start_law(sheet), clean, clean["runtime_ms"].to_numpy() / 1e3)
        seconds = shared_seconds(model.seconds(test), foreign)
        if target == "energy_j":
            return recorded_joules(power * seconds)
        if target == "gflops":
            m, n, k = (test[column].to_numpy(dtype=float) for column in "MNK")
            return 2e-9 * m * n * k / seconds
        return 1e3 * seconds

    return predict


def recorded_joules(joules: FloatArray) -> FloatArray:
    """Energies as the study recorded them: cut down to whole millijoules, of which small GEMMs take a few."""
    return np.maximum(np.floor(1e3 * joules), 1.0) / 1e3
