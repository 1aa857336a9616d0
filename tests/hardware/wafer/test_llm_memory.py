"""Memory of whole models: regions, weights, room for the cache."""

from dataclasses import replace

import pytest

from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.llm_memory import LLMMemory
from lapidist.hardware.wafer.published import published_models
from lapidist.hardware.wafer.regions import Grid

LLAMA3 = LLMMemory(published_models()["LLaMA3-8B"], load_device("wse-2"))
GRID = Grid(360, 360)


def test_weights_and_cache_in_bytes() -> None:
    """436 MB a layer in fp16, and 2 x 1024 numbers a token and layer."""
    assert LLAMA3.weight_bytes / 32 == pytest.approx(436e6, rel=1e-3)
    assert LLAMA3.kv_bytes(100) == 100 * 2 * 1024 * 2 * 32
    assert LLAMA3.wafer_bytes == 994 * 750 * 45056


def test_regions_are_full_and_not_too_full() -> None:
    fill = LLAMA3.fill("decode", GRID, 4096)
    assert fill.regions == 3
    assert fill.bytes_per_core <= LLAMA3.limit
    one_more_layer = fill.bytes_per_core + LLAMA3.weight_bytes / 32 / GRID.cores
    assert one_more_layer > LLAMA3.limit


def test_room_for_the_cache() -> None:
    """More regions leave more of each core to the cache; shift has as many times concat's room as there are rows."""
    rooms = [LLAMA3.cache_capacity(GRID, regions) for regions in (4, 6, 8)]
    assert LLAMA3.cache_capacity(GRID) == rooms[0], "four such regions fit on the wafer"
    assert rooms[0].shift < rooms[1].shift < rooms[2].shift
    for room in rooms:
        assert room.concat == int(room.per_row)
        assert room.shift == pytest.approx(360 * room.per_row, abs=1)
    full = -(-rooms[0].shift // 360) * 360
    assert LLAMA3.fill("decode", GRID, rooms[0].shift // 360 * 360).regions == 4
    assert LLAMA3.fill("decode", GRID, full + 360).regions > 4
    large = replace(LLAMA3, shape=published_models()["LLaMA2-13B"])
    with pytest.raises(ValueError, match="10 layers in each of 4 regions of 375x375 leave no room"):
        large.cache_capacity(Grid(375, 375))
