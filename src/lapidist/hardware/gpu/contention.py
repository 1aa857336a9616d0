"""What a foreign job on a shared GPU does to a measurement: it takes its turns, and it draws the power that is read.

Both are diagnoses, not forecasts: whether a foreign job ran is read from the utilization beside each run.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# A kernel shorter than the driver's turn usually ends within its own. Two milliseconds is the usual default; runs
# beside a foreign job in the study take either 0.05 or more than 14 ms, so they do not tell.
TIME_SLICE_SECONDS = 2e-3


def shared_seconds(seconds_alone: FloatArray, foreign_job: BoolArray) -> FloatArray:
    """Two busy processes take turns: kernels longer than a time slice last twice as long. Nothing is fitted."""
    taking_turns = foreign_job & (seconds_alone > TIME_SLICE_SECONDS)
    return np.where(taking_turns, 2 * seconds_alone, seconds_alone)


@dataclass(frozen=True)
class OneBitPower:
    """Power read beside a run from one bit: was a foreign job there? It knows nothing of the GEMM.

    Attributes
    ----------
    idle_watts, foreign_watts : mean readings without and with a foreign job.
    """

    idle_watts: float
    foreign_watts: float

    @classmethod
    def fit(cls, foreign_job: BoolArray, watts: FloatArray) -> Self:
        """Means of the readings; one that has no rows takes the mean of all."""
        means = [
            float(watts[rows].mean() if rows.any() else watts.mean()) for rows in (~foreign_job, foreign_job)
        ]
        return cls(*means)

    def watts(self, foreign_job: BoolArray) -> FloatArray:
        return np.where(foreign_job, self.foreign_watts, self.idle_watts)
