"""Splits hold out whole sites, shapes and GPUs, and always the same ones."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.hardware.gpu.splits import (
    Split,
    drop_repeated_shapes,
    few_points,
    frontier,
    grouped_folds,
    leave_one_gpu_out,
    leave_one_out,
    scale_extrapolation,
    shape_labels,
    site20,
)


def _grid(ms: int = 4, ns: int = 5, ks: int = 6) -> pd.DataFrame:
    axes = np.meshgrid(2 ** np.arange(ms), 32 * 2 ** np.arange(ns), 64 * 2 ** np.arange(ks), indexing="ij")
    return pd.DataFrame(dict(zip("mnk", (axis.ravel() for axis in axes), strict=True)))


@settings(deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), st.integers(3, 5), st.integers(0, 5))
def test_site20_holds_out_a_fifth_of_the_sites_whole(ms: int, ns: int, ks: int, seed: int) -> None:
    frame = _grid(ms, ns, ks)
    train, test = site20(frame, seed).apply(frame)
    sites = lambda rows: set(zip(rows["n"], rows["k"], strict=True))  # noqa: E731
    assert not sites(train) & sites(test)
    assert len(sites(test)) == int(0.2 * ns * ks)
    assert len(train) + len(test) == len(frame)


def test_site20_draws_rows_before_sites() -> None:
    """The definition that published numbers are compared by: one permutation of the rows, then one of the sites."""
    frame = _grid()
    generator = np.random.RandomState(0)
    generator.permutation(len(frame))
    held_out = generator.permutation(30)[:6]
    sites = sorted(set(zip(frame["n"], frame["k"], strict=True)))
    expected = {sites[number] for number in held_out}
    _, test = site20(frame).apply(frame)
    assert set(zip(test["n"], test["k"], strict=True)) == expected


def test_site20_refuses_repeated_shapes() -> None:
    frame = pd.concat([_grid(), _grid()])
    with pytest.raises(ValueError, match="repeats: select one GPU"):
        site20(frame)
    assert len(drop_repeated_shapes(frame)) == len(_grid())


def test_frontier_and_scale() -> None:
    frame = _grid(ns=10)
    train, test = frontier(frame, limit=1024).apply(frame)
    assert train["n"].max() == 1024
    assert test["n"].min() == 2048
    small, large = scale_extrapolation(frame, 1e6).apply(frame)
    assert (2 * small.prod(axis=1)).max() <= 1e6 < (2 * large.prod(axis=1)).min()


def test_siblings_leave_together() -> None:
    gpus = pd.Series(["h100_sxm", "l40s", "h200_sxm", "h100_sxm", "a100_sxm"])
    splits = {split.name: split for split in leave_one_gpu_out(gpus)}
    assert set(splits) == set(gpus)
    assert list(splits["h100_sxm"].test) == [0, 3]
    assert list(splits["h100_sxm"].train) == [1, 4]
    assert list(splits["l40s"].train) == [0, 2, 3, 4]


def test_leave_one_out_and_folds_keep_labels_whole() -> None:
    labels = shape_labels(_grid())
    assert sum(len(split.test) for split in leave_one_out(labels[:12])) == 12
    folds = list(grouped_folds(labels, 6))
    assert len(folds) == 6
    for split in folds:
        assert not set(labels[split.train]) & set(labels[split.test])
    with pytest.raises(ValueError, match="6 folds need"):
        list(grouped_folds(["a", "b"], 6))


def test_bad_splits_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to test"):
        frontier(_grid(), limit=1e9)
    with pytest.raises(ValueError, match="rows on both sides, first 2"):
        Split("x", np.array([1, 2]), np.array([2]))
    with pytest.raises(ValueError, match="lack the column 'n'"):
        site20(pd.DataFrame({"m": [1], "k": [1]}))
    with pytest.raises(ValueError, match="cannot draw 10 points"):
        few_points(10, 10)
    assert len(few_points(100, 20).train) == 20
