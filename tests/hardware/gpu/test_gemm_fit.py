"""Fitting, storing and loading: on times made by a known law, and on measured GPUs where the data folder is there."""

from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest

from benchmarks.hardware.gemm_interpolator import UtilizationInterpolator
from lapidist.hardware.gpu.accuracy import accuracy
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.gemm_fit import FittedPool, TreeSize, fit_gemm_models
from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.gemm_predictor import gemm_predictor
from lapidist.hardware.gpu.gemm_roofline import RooflineParameters, roofline_terms
from lapidist.hardware.gpu.gemm_store import GEMMModels, write_gemm_models
from lapidist.hardware.gpu.leakage import check_no_leakage
from lapidist.hardware.gpu.measurements import read_gemm_table, select
from lapidist.hardware.gpu.splits import drop_repeated_shapes, frontier, site20
from tests.hardware.gpu.measured_data import measured_data

QUICK = TreeSize(trees=30, leaves=31, learning_rate=0.15, interval_trees=10, interval_leaves=7)


def made_up(system: str = "l4", backend: str = "torch", factor: float = 1.0, sites: int = 60) -> pd.DataFrame:
    """Times of a law with a step that the analytical model does not know, and 2 % of noise."""
    generator = np.random.default_rng(0)
    n, k = (2.0 ** generator.integers(6, 14, sites) + 64 * generator.integers(0, 9, sites) for _ in range(2))
    m = np.tile([1.0, 8, 16, 32, 64, 128, 256, 512, 1024], sites)
    n, k = np.repeat(n, 9), np.repeat(k, 9)
    law = RooflineParameters(launch_seconds=3e-6 * factor, power_cap=0.6, memory_efficiency=0.7)
    terms = roofline_terms(m, n, k, load_data_sheet(system), gemm_format("bf16"), law)
    step = np.where(k > 4096, 1.25, 1.0) * np.exp(0.02 * generator.standard_normal(len(m)))
    keys = {"system": system, "backend": backend, "version": "1", "dtype": "bf16"}
    return pd.DataFrame({**keys, "m": m, "n": n, "k": k, "seconds": terms.seconds * step})


@pytest.fixture(scope="module")
def pool() -> FittedPool:
    table = pd.concat([made_up(), made_up(backend="other", factor=2.0)])
    return fit_gemm_models(table, QUICK)[0]


def test_step_is_learned_and_told_about(pool: FittedPool) -> None:
    assert [group.backend for group in pool.groups] == ["other", "torch"]
    for group in pool.groups:
        assert group.errors["mape"] < 0.08
        assert 0.8 <= group.errors["coverage"] <= 1


def test_stored_models_answer_the_same(pool: FittedPool, tmp_path: Path) -> None:
    write_gemm_models(tmp_path / "a.zip", [pool])
    write_gemm_models(tmp_path / "b.zip", [pool])
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    stored = GEMMModels(tmp_path / "a.zip")
    group = stored.groups()[0]
    sizes = tuple(np.array([16.0, 500.0]) for _ in range(3))
    before, after = (
        pool.model(pool.groups[0]),
        stored.model(group, load_data_sheet("l4"), gemm_format("bf16")),
    )
    rounding = sum(half_steps(trees) for trees in (pool.trees.residual, pool.trees.high))
    for a, b in zip(before.seconds(*sizes), after.seconds(*sizes), strict=True):
        assert a == pytest.approx(b, rel=rounding)


def half_steps(booster: lightgbm.Booster) -> float:
    """How far rounding every leaf to 1/127 of its tree's largest may move a prediction."""
    trees = [
        part.split("leaf_value=")[1].splitlines()[0] for part in booster.model_to_string().split("Tree=")[1:]
    ]
    return sum(float(np.abs(np.array(leaves.split(), dtype=float)).max()) / 254 for leaves in trees)


def test_users_models_are_chosen_by_backend(pool: FittedPool, tmp_path: Path) -> None:
    write_gemm_models(tmp_path / "a.zip", [pool])
    times = [
        gemm_predictor("l4", "bf16", backend, models=tmp_path / "a.zip").predict(1, 64, 64).seconds
        for backend in ("torch", "other")
    ]
    assert times[1] == pytest.approx(2 * times[0], rel=0.2)
    with pytest.raises(ValueError, match="there are other 1, torch 1"):
        gemm_predictor("l4", "bf16", "vllm", models=tmp_path / "a.zip")


def test_file_that_is_none_of_models(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="not a file of fitted GEMM models"):
        GEMMModels(tmp_path / "a.zip")


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="a fit needs 100 rows at 10"):
        fit_gemm_models(made_up(sites=5), QUICK)


@pytest.fixture(scope="module")
def h200() -> pd.DataFrame:
    table = read_gemm_table(measured_data("aiconfigurator_gemm.parquet") / "aiconfigurator_gemm.parquet")
    rows = select(table, system="h200_sxm", backend="TRTLLM", version="1.3.0rc20", dtype="bf16")
    for column in ("system", "backend", "version", "dtype"):
        rows[column] = rows[column].cat.remove_unused_categories()
    return drop_repeated_shapes(rows)


@pytest.mark.slow
def test_unseen_sites_of_h200(h200: pd.DataFrame) -> None:
    train, test = site20(h200).apply(h200)
    check_no_leakage(train, test)
    pool = fit_gemm_models(train, TreeSize(trees=80, leaves=127, learning_rate=0.1))[0]
    model = pool.model(pool.groups[0])
    sizes = tuple(test[name].to_numpy(float) for name in ("m", "n", "k"))
    seconds, low, high, _ = model.seconds(*sizes)
    measured = test["seconds"].to_numpy()
    errors = accuracy(measured, seconds)
    assert errors.mape <= 0.034
    assert 0.87 <= ((measured >= low) & (measured <= high)).mean() <= 0.95
    baseline = UtilizationInterpolator.fit(train, model.sheet, model.format).seconds(*sizes)
    assert accuracy(measured, baseline).mape >= 1.5 * errors.mape


@pytest.mark.slow
def test_beyond_the_data_the_interval_is_wider(h200: pd.DataFrame) -> None:
    train, test = frontier(h200).apply(h200)
    pool = fit_gemm_models(train, TreeSize(trees=80, leaves=127, learning_rate=0.1))[0]
    sizes = tuple(test[name].to_numpy(float) for name in ("m", "n", "k"))
    seconds, low, high, octaves = pool.model(pool.groups[0]).seconds(*sizes)
    measured = test["seconds"].to_numpy()
    assert accuracy(measured, seconds).mape <= 0.06
    assert (octaves > 0).all()
    inside = np.log(pool.groups[0].errors["interval_ratio"])
    assert np.log(np.median(high / low)) >= 1.5 * inside
