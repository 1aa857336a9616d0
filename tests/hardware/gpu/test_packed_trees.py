import lzma

import lightgbm
import numpy as np
import pytest

from lapidist.hardware.gpu.packed_trees import pack, unpack


def _fitted(leaves: int = 31, trees: int = 40) -> tuple[lightgbm.Booster, np.ndarray]:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(3000, 5))
    target = np.sin(3 * features[:, 0]) + features[:, 1] * (features[:, 2] > 0.3)
    parameters = {"objective": "l1", "num_leaves": leaves, "verbose": -1, "num_threads": 1, "seed": 0}
    return lightgbm.train(parameters, lightgbm.Dataset(features, target), trees), features


@pytest.mark.parametrize("leaves", [2, 31, 255, 400])
def test_unpacked_ensemble_predicts_the_same_up_to_rounding_of_its_leaves(leaves: int) -> None:
    booster, features = _fitted(leaves)
    expected = booster.predict(features)
    found = unpack(pack(booster)).predict(features)
    rounding = sum(np.abs(booster.get_leaf_output(tree, 0)) for tree in range(1)) / 127
    assert np.abs(found - expected).mean() < 0.01 * np.abs(expected).std() + rounding
    assert np.corrcoef(found, expected)[0, 1] > 0.9999


def test_packing_again_changes_nothing() -> None:
    once = pack(_fitted()[0])
    assert pack(unpack(once)) == once


def test_a_tree_may_be_a_single_leaf() -> None:
    data = lightgbm.Dataset(np.zeros((100, 2)), np.full(100, 0.25))
    booster = lightgbm.train({"verbose": -1, "num_threads": 1, "feature_pre_filter": False}, data, 2)
    assert unpack(pack(booster)).predict(np.zeros((1, 2))) == pytest.approx(0.25)


def test_packed_is_a_fraction_of_the_text() -> None:
    booster, _ = _fitted()
    assert len(pack(booster)) < len(booster.model_to_string()) / 12


def test_what_is_no_ensemble_is_refused() -> None:
    with pytest.raises(ValueError, match="not a packed ensemble"):
        unpack(b"nothing")
    packed = pack(_fitted()[0])
    for damaged in (packed[: len(packed) // 2], packed[:-40] + bytes(40), lzma.compress(b"LPT1" + bytes(60))):
        with pytest.raises(ValueError, match="packed ensemble"):
            unpack(damaged)


def test_categories_and_too_many_thresholds_are_refused() -> None:
    generator = np.random.default_rng(1)
    kinds = generator.integers(0, 20, size=(2000, 1))
    data = lightgbm.Dataset(kinds, generator.normal(size=20)[kinds[:, 0]], categorical_feature=[0])
    with pytest.raises(ValueError, match="only splits of numbers"):
        pack(lightgbm.train({"verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}, data, 3))
    fine = generator.normal(size=(3000, 1))
    settings = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 1, "max_bin": 1000, "num_leaves": 400}
    with pytest.raises(ValueError, match="at most 255"):
        pack(lightgbm.train(settings, lightgbm.Dataset(fine, np.sin(9 * fine[:, 0])), 3))
