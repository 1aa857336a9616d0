"""How measured rows are divided into a part to fit on and a part to judge by, never row by row at random.

Rows of one shape, one (n, k) site or one GPU resemble each other so much that a random split asks a model for what it
has already seen. Every split here holds out something whole. A split carries row positions (``frame.iloc``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

Positions = NDArray[np.int64]

# GPUs of one generation that must leave the training part together: they run the same kernels at nearly the same rates.
SIBLINGS: tuple[frozenset[str], ...] = (
    frozenset({"h100_sxm", "h200_sxm"}),
    frozenset({"b200_sxm", "b300_sxm", "gb200", "gb300", "gb200_sxm", "gb300_sxm"}),
)


@dataclass(frozen=True, eq=False)
class Split:
    """Row positions to fit on and to test on, each sorted in ascending order.

    Raises
    ------
    ValueError : a side is empty, or a row is on both sides.
    """

    name: str
    train: Positions
    test: Positions

    def __post_init__(self) -> None:
        for side, rows in (("train", self.train), ("test", self.test)):
            if len(rows) == 0:
                raise ValueError(f"split {self.name!r} leaves no rows to {side} on")
        shared = np.intersect1d(self.train, self.test)
        if len(shared):
            raise ValueError(f"split {self.name!r} has {len(shared)} rows on both sides, first {shared[0]}")

    def apply(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The train and the test rows of ``frame``, index as it was."""
        return frame.iloc[self.train], frame.iloc[self.test]


def split_by_mask(name: str, is_test: NDArray[np.bool_] | pd.Series) -> Split:
    """The rows where ``is_test`` holds are the test part."""
    mask = np.asarray(is_test, dtype=bool)
    return Split(name, np.flatnonzero(~mask), np.flatnonzero(mask))


def drop_repeated_shapes(frame: pd.DataFrame) -> pd.DataFrame:
    """The first row of each (m, n, k), in the order of the file and numbered anew: what ``site20`` is defined on."""
    _require_columns(frame, ("m", "n", "k"))
    return frame.drop_duplicates(["m", "n", "k"]).reset_index(drop=True)


def site20(frame: pd.DataFrame, seed: int = 0) -> Split:
    """SITE20: a fifth of the (n, k) sites held out whole, as a new weight matrix is to a fitted model.

    The generator is asked for a permutation of the rows first and of the sites second, sites numbered in sorted order,
    so that the held-out sites are the same wherever the same rows are split.

    Raises
    ------
    ValueError : an (m, n, k) occurs twice; take one GPU, backend, version and dtype and ``drop_repeated_shapes``.
    """
    _require_columns(frame, ("m", "n", "k"))
    repeated = frame.duplicated(["m", "n", "k"]).to_numpy()
    if repeated.any():
        m, n, k = frame[["m", "n", "k"]].to_numpy()[np.argmax(repeated)]
        raise ValueError(
            f"SITE20 needs each (m, n, k) once, but {m} x {n} x {k} repeats: select one GPU, backend, version and "
            "dtype, then drop_repeated_shapes"
        )
    generator = np.random.RandomState(seed)
    generator.permutation(len(frame))
    site = frame.groupby(["n", "k"], sort=True).ngroup().to_numpy()
    order = generator.permutation(int(site.max()) + 1)
    return split_by_mask("site20", np.isin(site, order[: int(0.2 * len(order))]))


def frontier(frame: pd.DataFrame, column: str = "n", limit: float = 8192) -> Split:
    """Fit up to ``limit`` in ``column``, test beyond."""
    _require_columns(frame, (column,))
    return split_by_mask(f"{column} <= {limit:g} to larger", frame[column] > limit)


def scale_extrapolation(frame: pd.DataFrame, limit_flops: float = 1e11) -> Split:
    """Fit on GEMMs of up to ``limit_flops`` (2 m n k), test on larger ones."""
    _require_columns(frame, ("m", "n", "k"))
    flops = 2.0 * frame["m"].astype(float) * frame["n"] * frame["k"]
    return split_by_mask(f"<= {limit_flops:g} FLOP to larger", flops > limit_flops)


def leave_one_out(labels: Sequence[object] | pd.Series) -> Iterator[Split]:
    """Each distinct label held out in turn, in sorted order; the split is named after it."""
    values = np.asarray(labels)
    for label in np.unique(values):
        yield split_by_mask(str(label), values == label)


def leave_one_gpu_out(
    gpus: Sequence[str] | pd.Series, siblings: Sequence[frozenset[str]] = SIBLINGS
) -> Iterator[Split]:
    """Each GPU as the test part in turn, its siblings in neither part; the split is named after the GPU."""
    values = np.asarray(gpus, dtype=str)
    for gpu in np.unique(values):
        family = {gpu}.union(*(group for group in siblings if gpu in group))
        related = np.isin(values, sorted(family))
        yield Split(str(gpu), np.flatnonzero(~related), np.flatnonzero(values == gpu))


def grouped_folds(labels: Sequence[object] | pd.Series, folds: int = 6) -> Iterator[Split]:
    """``folds`` parts of nearly equal size, each label whole in one of them.

    Raises
    ------
    ValueError : fewer labels than folds.
    """
    values = np.asarray(labels)
    distinct = len(np.unique(values))
    if distinct < folds:
        raise ValueError(f"{folds} folds need at least as many groups, got {distinct}")
    for number, (train, test) in enumerate(GroupKFold(folds).split(values, groups=values)):
        yield Split(f"fold {number + 1} of {folds}", train, test)


def few_points(count: int, points: int, seed: int = 0) -> Split:
    """``points`` rows drawn at random to calibrate on, all others to test on.

    This is how a new device is judged: the owner measures a few shapes, the model answers for the rest.
    """
    if not 0 < points < count:
        raise ValueError(
            f"cannot draw {points} points to calibrate on from {count} rows and keep rows to test on"
        )
    chosen = np.zeros(count, dtype=bool)
    chosen[np.random.RandomState(seed).permutation(count)[:points]] = True
    return split_by_mask(f"{points} points", ~chosen)


def shape_labels(frame: pd.DataFrame, columns: Sequence[str] = ("m", "n", "k")) -> NDArray[np.str_]:
    """One label per row, such as ``512x1024x2048``, to group by."""
    _require_columns(frame, columns)
    parts = [frame[column].astype(str).to_numpy(dtype=str) for column in columns]
    return np.array(["x".join(row) for row in zip(*parts, strict=True)])


def _require_columns(frame: pd.DataFrame | Mapping[str, object], columns: Sequence[str]) -> None:
    absent = [column for column in columns if column not in frame]
    if absent:
        raise ValueError(f"the rows to split lack the column {absent[0]!r}")
