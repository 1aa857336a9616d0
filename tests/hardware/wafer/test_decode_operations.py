import numpy as np

from lapidist.hardware.wafer.decode_layer import DecodePlan
from lapidist.hardware.wafer.decode_operations import DecodeOperations
from lapidist.hardware.wafer.layer_numbers import LayerNumbers
from lapidist.hardware.wafer.rope import Rope
from tests.hardware.wafer.dense_decoder import SmallShape

PLAN = DecodePlan(SmallShape(8, 8, num_heads=4, num_kv_heads=2, head_dim=4), 3, 2, row_capacity=5)
NUMBERS = LayerNumbers(Rope.plain(np.array([1.0, 0.1])), norm_eps=1e-5, attention_scale=0.5)


def operations() -> DecodeOperations:
    return DecodeOperations(PLAN, NUMBERS)


def test_a_new_token_goes_behind_those_of_the_last_row() -> None:
    keys, values = np.zeros((3, 2, 1, 1, 5, 4)), np.zeros((3, 2, 1, 1, 5, 4))
    occupancy = np.array([2, 1, 1])[:, None, None].repeat(2, axis=1)
    new_key, new_value = np.full((3, 2, 1, 1, 1, 4), 7.0), np.full((3, 2, 1, 1, 1, 4), 8.0)
    operations().append(keys, values, occupancy, np.ones((3, 2, 1), np.int64), new_key, new_value)
    assert occupancy[:, :, 0].tolist() == [[2, 2], [1, 1], [2, 2]]
    assert np.all(keys[2, :, 0, 0, 1] == 7)
    assert keys.sum() == 7 * 8
    assert values.sum() == 8 * 8
    operations().append(keys, values, occupancy, np.zeros((3, 2, 1), np.int64), 2 * new_key, 2 * new_value)
    assert occupancy[:, 0, 0].tolist() == [2, 1, 2], "a sequence that has ended keeps what it has"
    assert keys.sum() == 7 * 8


def test_scores_beyond_what_a_row_holds_weigh_nothing() -> None:
    scores = np.ones((3, 2, 1, 1, 2, 5))
    occupancy = np.array([2, 1, 0])[:, None, None].repeat(2, axis=1)
    masked, maxima = operations().mask(scores, occupancy)
    assert maxima[:, 0, 0, 0, 0].tolist() == [0.5, 0.5, -np.inf]
    weights, sums = operations().exponentials(masked, np.full_like(maxima, 0.5))
    assert sums[:, 0, 0, 0, 0].tolist() == [2, 1, 0]
    assert np.isfinite(weights).all()


def test_the_first_token_is_not_rotated_and_later_ones_keep_their_length() -> None:
    qkv = np.random.default_rng(0).standard_normal((3, 2, 1, 2 * 4 + 4 + 4))
    work = operations()
    query, key, value = work.split_heads(qkv)
    assert np.array_equal(query.reshape(3, 2, -1), qkv[:, :, 0, :8])
    assert np.array_equal(key.reshape(3, 2, -1), qkv[:, :, 0, 8:12])
    work.move_to(np.array([3]))
    turned, _, unturned = work.split_heads(qkv)
    assert np.allclose(np.square(turned).sum(-1), np.square(query).sum(-1))
    assert not np.allclose(turned, query)
    assert np.array_equal(unturned, value)
