from collections import Counter

import numpy as np
import pytest

from lapidist.hardware.wafer.decode_layer import DecodePlan
from lapidist.hardware.wafer.decoder_layouts import (
    cache_as_matrices,
    decode_cache,
    decode_hidden,
    matrices_as_cache,
    parameters,
    prefill_cache,
    prefill_hidden,
)
from lapidist.hardware.wafer.kv_capacity import even_rows
from lapidist.hardware.wafer.layout import PADDING, Layout, blocks, grid, relayout, relayout_traffic
from lapidist.hardware.wafer.placement import skew_rows, to_tiles
from lapidist.hardware.wafer.prefill_layer import PrefillPlan
from tests.hardware.wafer.dense_decoder import SmallShape

SHAPES = [
    SmallShape(32, 48, num_heads=4, num_kv_heads=2, head_dim=4),
    SmallShape(64, 96, num_heads=4, num_kv_heads=2, head_dim=16),
    SmallShape(50, 70, num_heads=6, num_kv_heads=3, head_dim=14),
]
MESHES = [((4, 4), (4, 4)), ((8, 8), (3, 8)), ((6, 6), (4, 4)), ((3, 4), (5, 2))]
TOKENS = 21


def bits(*shape: int) -> np.ndarray:
    """Random bits, NaNs and denormals among them, so that only their preservation can be tested."""
    return np.random.default_rng(1).integers(0, 1 << 16, shape, dtype=np.uint16).view(np.float16)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a.view(np.uint16), b.view(np.uint16))


def layouts(shape: SmallShape, meshes: tuple[tuple[int, int], tuple[int, int]]) -> dict[str, tuple]:
    prefill, decode = PrefillPlan(shape, *meshes[0], TOKENS), DecodePlan(shape, *meshes[1], 12)
    held = even_rows(TOKENS, decode.rows)
    found = {p.prefill_name: (p.prefill, p.decode) for p in parameters(prefill, decode)}
    found |= {
        name: pair
        for name, *pair in zip(
            ("keys", "values"), prefill_cache(prefill), decode_cache(decode, held), strict=True
        )
    }
    return found


def sides(layout: Layout) -> tuple[int, int]:
    return int(layout.row.max()) + 1, int(layout.column.max()) + 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("meshes", MESHES, ids=str)
def test_everything_moves_to_the_decode_mesh_bit_by_bit(shape: SmallShape, meshes: tuple) -> None:
    for name, (source, target) in layouts(shape, meshes).items():
        assert sides(source) == sides(target), name
        matrix = bits(*sides(source))
        moved = relayout(source.place(matrix), source, target, matrix.shape)
        assert same_bits(moved, target.place(matrix)), name
        assert same_bits(target.collect(moved, *matrix.shape), matrix), name
        assert same_bits(source.collect(source.place(matrix), *matrix.shape), matrix), name


@pytest.mark.parametrize("meshes", MESHES, ids=str)
def test_traffic_counts_every_element_that_changes_its_core(meshes: tuple) -> None:
    for source, target in layouts(SHAPES[1], meshes).values():
        traffic = relayout_traffic(source, meshes[0], target, meshes[1], sides(source), 2)
        expected = count_moves(source, meshes[0], target, meshes[1])
        assert {core: n for core, n in np.ndenumerate(traffic.received // 2) if n} == expected
        assert traffic.sent.sum() == traffic.received.sum()


def count_moves(source: Layout, source_mesh: tuple, target: Layout, target_mesh: tuple) -> Counter:
    """The same by visiting every place of every tile."""
    home: dict[tuple[int, int], tuple[int, int]] = {}
    for core, element in places(source, source_mesh):
        home[element] = core
    return Counter(core for core, element in places(target, target_mesh) if home[element] != core)


def places(layout: Layout, mesh: tuple[int, int]):
    slots_y, slots_x, tile_rows = layout.row.shape
    for y, x, i in np.ndindex(slots_y, slots_x, tile_rows):
        for j in range(layout.column.shape[2]):
            row, column = int(layout.row[y, x, i]), int(layout.column[y, x, j])
            if PADDING not in (row, column):
                yield (y // (slots_y // mesh[0]), x // (slots_x // mesh[1])), (row, column)


def test_grids_are_plain_tiles_and_weights_are_skewed() -> None:
    matrix = np.random.default_rng(0).standard_normal((13, 22))
    assert np.array_equal(grid(blocks(13, 4), blocks(22, 5)).place(matrix), to_tiles(matrix, 4, 5))
    shape = SHAPES[1]
    found = layouts(shape, ((4, 4), (4, 4)))["wgate"][0]
    gate = np.random.default_rng(0).standard_normal((shape.hidden_size, shape.intermediate_size))
    assert np.array_equal(found.place(gate), skew_rows(to_tiles(gate, 4, 4), "interleaved"))


def test_hidden_states_of_the_last_token_go_to_every_column() -> None:
    prefill, decode = PrefillPlan(SHAPES[1], 6, 6, TOKENS), DecodePlan(SHAPES[1], 4, 5, 12)
    hidden = np.random.default_rng(0).standard_normal((TOKENS, 64))
    source, target = prefill_hidden(prefill), decode_hidden(decode, TOKENS - 1)
    moved = relayout(source.place(hidden), source, target, hidden.shape)
    assert moved.shape == (4, 5, 1, 16)
    for col in range(5):
        assert np.array_equal(moved[:, col, 0].reshape(-1), hidden[-1])


def test_cache_tiles_change_shape_and_back() -> None:
    tiles = bits(3, 4, 2, 5, 6)
    assert same_bits(matrices_as_cache(cache_as_matrices(tiles), 2)[:, :, 0], tiles)
