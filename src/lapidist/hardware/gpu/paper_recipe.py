"""The model of the Ada study (Liu and Halim, arXiv 2411.16954) as published, to be judged by other splits than its own.

Nine numeric features, four independent random forests of depth 6, every feature and target clipped to its 1st and 99th
percentile over all runs before anything is split. Kept for comparison; nothing else builds on it.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from lapidist.hardware.gpu.splits import Split

TARGETS = ("runtime_ms", "power_w", "energy_j", "gflops")


def paper_features(runs: pd.DataFrame) -> pd.DataFrame:
    """Sizes, the ignored block sizes, FLOPs, bytes and their ratio; neither layout nor beta, which do matter."""
    m, n, k = (runs[column].astype(float) for column in "MNK")
    features = runs[["M", "N", "K", "block_m", "block_n", "block_k"]].astype(float)
    flops, size = 2 * m * n * k, 4 * (m * k + k * n + m * n)
    return features.assign(flops=flops, bytes=size, intensity=flops / size)


def clipped_like_the_paper(pool: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """``pool`` with its targets clipped to percentiles of all ``runs``: test rows take part, as in the study."""
    targets = list(TARGETS)
    low, high = runs[targets].quantile(0.01), runs[targets].quantile(0.99)
    return pool.assign(**{name: pool[name].clip(low[name], high[name]) for name in targets})


def paper_split(count: int) -> Split:
    """The study's own: a fifth of the rows at random, seed 42."""
    train, test = train_test_split(np.arange(count), test_size=0.2, random_state=42)
    return Split("random rows", np.sort(train), np.sort(test))


def repeated_in_train(pool: pd.DataFrame, split: Split) -> float:
    """Share of test rows whose feature vector is in the train part too."""
    train, test = (paper_features(part) for part in split.apply(pool))
    seen = set(map(tuple, train.to_numpy()))
    return float(np.mean([tuple(row) in seen for row in test.to_numpy()]))


@dataclass(frozen=True, eq=False)
class PaperForests:
    """One forest per target."""

    scaler: StandardScaler
    forests: dict[str, RandomForestRegressor]

    @classmethod
    def fit(cls, runs: pd.DataFrame, targets: tuple[str, ...] = TARGETS, seed: int = 0) -> Self:
        features = paper_features(runs).to_numpy()
        scaler = StandardScaler().fit(features)
        forests = {}
        for target in targets:
            forest = RandomForestRegressor(n_estimators=100, max_depth=6, random_state=seed)
            forests[target] = forest.fit(scaler.transform(features), runs[target])
        return cls(scaler, forests)

    def predict(self, runs: pd.DataFrame, target: str) -> NDArray[np.float64]:
        """In the unit of the target."""
        return self.forests[target].predict(self.scaler.transform(paper_features(runs).to_numpy()))
