import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.wafer.head_groups import HeadGroups
from lapidist.hardware.wafer.layout import PADDING

groups_of_heads = st.builds(
    lambda cols, kv, shared, half: HeadGroups(cols, kv * shared, kv, 2 * half),
    cols=st.integers(1, 24),
    kv=st.integers(1, 12),
    shared=st.integers(1, 4),
    half=st.integers(1, 40),
)


@given(groups_of_heads, st.integers(1, 4))
def test_every_channel_has_one_place(heads: HeadGroups, slots: int) -> None:
    for channels, count in (
        (heads.query_columns(), heads.num_heads),
        (heads.key_columns(), heads.num_kv_heads),
        (heads.value_columns(slots), heads.num_kv_heads),
        (heads.output_rows(slots), heads.num_heads),
    ):
        assert channels.shape[0] == heads.cols
        placed = channels[channels != PADDING]
        assert np.array_equal(np.sort(placed), np.arange(count * heads.head_dim))


@given(groups_of_heads)
def test_heads_stay_in_their_group_and_pairs_on_their_column(heads: HeadGroups) -> None:
    group = np.arange(heads.cols) // heads.cores
    keys = heads.key_columns()
    queries = heads.query_columns()
    key_heads = np.where(keys == PADDING, -1, keys // heads.head_dim)
    query_heads = np.where(queries == PADDING, -1, queries // heads.head_dim)
    for col in range(heads.cols):
        own = set(key_heads[col].ravel().tolist()) - {-1}
        assert own <= set(range(group[col] * heads.kv_heads, (group[col] + 1) * heads.kv_heads))
        read = {head // heads.queries_per_kv for head in set(query_heads[col].ravel().tolist()) - {-1}}
        assert read == own
    first, second = np.split(keys, 2, axis=-1)
    real = first != PADDING
    assert np.array_equal(second[real], first[real] + heads.head_dim // 2)
    assert np.all(second[~real] == PADDING)


def test_llama3_on_720_columns() -> None:
    heads = HeadGroups(720, 32, 8, 128)
    assert (heads.groups, heads.cores, heads.kv_heads, heads.queries_per_kv) == (8, 90, 1, 4)
    assert (heads.rotated, heads.values()) == (2, 2)


@pytest.mark.parametrize(("heads", "kv", "dim"), [(6, 4, 8), (4, 2, 7)])
def test_heads_that_do_not_divide(heads: int, kv: int, dim: int) -> None:
    with pytest.raises(ValueError, match="multiple of key/value heads and head_dim even"):
        HeadGroups(4, heads, kv, dim)
