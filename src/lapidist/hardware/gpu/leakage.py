"""The guard between fitting and judging: no key and no copied file on both sides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

# What makes two GEMM measurements the same measurement.
GEMM_KEY = ("m", "n", "k", "dtype", "backend", "version", "system")


class LeakageError(ValueError):
    """Test rows that a model was fitted on."""


@dataclass(frozen=True)
class Copies:
    """Files that hold the same measurements under different names, each told by the values of some columns."""

    reason: str
    files: tuple[Mapping[str, str], ...]

    def present(self, frame: pd.DataFrame) -> set[int]:
        """Which of the files have rows in ``frame``, by number; compared without regard to case."""
        found = set()
        for number, file in enumerate(self.files):
            if not set(file) <= set(frame.columns):
                continue
            hit = np.ones(len(frame), dtype=bool)
            for column, value in file.items():
                hit &= frame[column].astype(str).str.casefold().to_numpy() == value.casefold()
            if hit.any():
                found.add(number)
        return found


KNOWN_COPIES: tuple[Copies, ...] = (
    Copies(
        "the B300 table of SGLang 0.5.14 in aiconfigurator is the GB300 table",
        (
            {"system": "b300_sxm", "backend": "sglang", "version": "0.5.14"},
            {"system": "gb300", "backend": "sglang", "version": "0.5.14"},
        ),
    ),
    Copies(
        "Frontier's A100, A40 and H100 linear tables are Vidur's",
        ({"source": "vidur"}, {"source": "frontier"}),
    ),
)


def check_no_leakage(
    train: pd.DataFrame,
    test: pd.DataFrame,
    key: Sequence[str] = GEMM_KEY,
    copies: Sequence[Copies] = KNOWN_COPIES,
) -> None:
    """Refuse to judge a model by rows it has seen.

    Raises
    ------
    LeakageError : a key is on both sides, or two files that are copies of each other are on different sides.
    ValueError : a column of the key is absent from either side, so that nothing could be promised.
    """
    for side, frame in (("train", train), ("test", test)):
        absent = [column for column in key if column not in frame.columns]
        if absent:
            raise ValueError(f"cannot look for leakage: the {side} rows lack the column {absent[0]!r}")
    shared = _keys(train, key).intersection(_keys(test, key))
    if len(shared):
        first = ", ".join(f"{name}={value}" for name, value in zip(key, shared[0], strict=True))
        raise LeakageError(f"{len(shared)} keys are in both the train and the test part, such as {first}")
    for group in copies:
        here, there = group.present(train), group.present(test)
        if here and there and (here | there) != (here & there):
            raise LeakageError(f"copied files are on both sides: {group.reason}")


def _keys(frame: pd.DataFrame, key: Sequence[str]) -> pd.MultiIndex:
    """Distinct keys; categories as text, so that two files' categories compare by value."""
    columns = []
    for name in key:
        column = frame[name]
        columns.append(column if pd.api.types.is_numeric_dtype(column) else column.astype(str))
    return pd.MultiIndex.from_arrays(columns, names=list(key)).unique()
