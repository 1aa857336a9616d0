"""Which tile sizes make a GEMM kernel fast: learned from some measured configurations, and carried to another GPU.

A configuration is CLBlast's (Nugteren, IWOCL 2018): a work group computes ``MWG x NWG`` of the output with ``MDIMC x
NDIMC`` threads, loads A and B by ``MDIMA`` and ``NDIMB`` threads wide in vectors of ``VWM`` and ``VWN``, and stages
A or B in shared memory if ``SA`` or ``SB`` is 1. What a GPU feels of it are its products: threads, work per thread,
registers, shared memory, loads per multiplication. Trees on those need few leaves, on the ten parameters many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lapidist.hardware.gpu.splits import Positions

FloatArray = NDArray[np.float64]

PARAMETERS = ("MWG", "NWG", "MDIMC", "NDIMC", "MDIMA", "NDIMB", "VWM", "VWN", "SA", "SB")
_STEP_OF_K = 32  # CLBlast's KWG, the same in every configuration
_TOWARDS_EQUAL_WEIGHTS = 0.3


def tile_features(configurations: pd.DataFrame) -> pd.DataFrame:
    """The ten parameters and what follows from them; a row per configuration.

    Raises
    ------
    ValueError : a parameter is absent.
    """
    absent = [name for name in PARAMETERS if name not in configurations]
    if absent:
        raise ValueError(f"the configurations lack the parameter {absent[0]!r}")
    c = configurations[list(PARAMETERS)].astype(float)
    threads = c["MDIMC"] * c["NDIMC"]
    rows, columns = c["MWG"] / c["MDIMC"], c["NWG"] / c["NDIMC"]  # of one thread
    derived = {
        "threads": threads,
        "rows": rows,
        "columns": columns,
        "accumulators": rows * columns,
        "registers": rows * columns + rows + columns,
        "reuse_in_registers": rows * columns / (rows + columns),
        "reuse_in_tile": c["MWG"] * c["NWG"] / (c["MWG"] + c["NWG"]),
        "work_groups": 1 / (c["MWG"] * c["NWG"]),
        "shared_bytes": 4 * _STEP_OF_K * (c["SA"] * c["MWG"] + c["SB"] * c["NWG"]),
        "loads_per_thread": (c["MWG"] + c["NWG"]) / threads,
        "vectors_of_rows": rows / c["VWM"],
        "vectors_of_columns": columns / c["VWN"],
        "lines_of_a": threads / c["MDIMA"],
        "lines_of_b": threads / c["NDIMB"],
        "vector_loads_of_a": c["MWG"] / c["MDIMA"] / c["VWM"],
        "vector_loads_of_b": c["NWG"] / c["NDIMB"] / c["VWN"],
    }
    return c.assign(**derived)


@dataclass(frozen=True, eq=False)
class TileTimeModel:
    """Time of a configuration on the GPU that it was fitted on."""

    trees: lightgbm.LGBMRegressor

    @classmethod
    def fit(cls, configurations: pd.DataFrame, milliseconds: ArrayLike, trees: int = 1000) -> Self:
        """Boosted trees on the logarithm of the time, by mean absolute error; the same answer in every run."""
        model = lightgbm.LGBMRegressor(
            n_estimators=trees,
            num_leaves=63,
            learning_rate=0.05,
            objective="l1",
            min_child_samples=5,
            num_threads=1,
            deterministic=True,
            verbose=-1,
        )
        return cls(model.fit(tile_features(configurations), np.log(np.asarray(milliseconds, dtype=float))))

    def milliseconds(self, configurations: pd.DataFrame) -> FloatArray:
        return np.exp(np.asarray(self.trees.predict(tile_features(configurations)), dtype=float))


@dataclass(frozen=True, eq=False)
class TransferredTileModel:
    """Time on a GPU of which a few configurations are measured: a product of powers of other GPUs' times."""

    sources: tuple[TileTimeModel, ...]
    powers: FloatArray
    scale: float

    @classmethod
    def fit(
        cls, sources: Sequence[TileTimeModel], configurations: pd.DataFrame, milliseconds: ArrayLike
    ) -> Self:
        """Least squares in the logarithm, held towards equal powers that add up to one.

        Raises
        ------
        ValueError : no source, or fewer than two measured configurations.
        """
        measured = np.log(np.asarray(milliseconds, dtype=float))
        if not sources or len(measured) < 2:
            raise ValueError(
                f"a transfer needs a source and two measured configurations, got {len(sources)} and {len(measured)}"
            )
        logs = np.column_stack([np.log(source.milliseconds(configurations)) for source in sources])
        middle, equal = logs.mean(axis=0), np.full(len(sources), 1 / len(sources))
        centred = logs - middle
        rest = measured - measured.mean() - centred @ equal
        inverse = centred.T @ centred + _TOWARDS_EQUAL_WEIGHTS * np.eye(len(sources))
        powers = equal + np.linalg.solve(inverse, centred.T @ rest)
        return cls(tuple(sources), powers, float(np.exp(measured.mean() - middle @ powers)))

    def milliseconds(self, configurations: pd.DataFrame) -> FloatArray:
        logs = np.column_stack([np.log(source.milliseconds(configurations)) for source in self.sources])
        return self.scale * np.exp(logs @ self.powers)


def fastest(predicted: FloatArray, count: int) -> Positions:
    """Positions of the ``count`` configurations expected to be fastest, best first; ties in their order."""
    return np.argsort(predicted, kind="stable")[:count]


def regret(measured: FloatArray, predicted: FloatArray, tried: int) -> float:
    """How much slower than the fastest of all is the best of the ``tried`` that the model picks; 0.05 is 5 %."""
    return float(measured[fastest(predicted, tried)].min() / measured.min() - 1)
