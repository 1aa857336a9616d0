"""How a matrix lies on the mesh: cut into equal tiles, padded with zeros, skewed where an algorithm wants it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapidist.hardware.wafer.ring import RingKind, ring_order, ring_position

Array = NDArray[Any]


def to_tiles(matrix: Array, row_slots: int, col_slots: int) -> Array:
    """``[rows, columns]`` to ``[row_slots, col_slots, tile_rows, tile_columns]``, padded with zeros below and right."""
    rows, columns = matrix.shape
    tile_rows, tile_columns = -(-rows // row_slots), -(-columns // col_slots)
    padded = np.zeros((row_slots * tile_rows, col_slots * tile_columns), matrix.dtype)
    padded[:rows, :columns] = matrix
    tiles = padded.reshape(row_slots, tile_rows, col_slots, tile_columns).swapaxes(1, 2)
    return np.ascontiguousarray(tiles)


def from_tiles(tiles: Array, rows: int, columns: int) -> Array:
    """Inverse of :func:`to_tiles`: ``[rows, columns]`` without the padding."""
    row_slots, col_slots, tile_rows, tile_columns = tiles.shape
    return tiles.swapaxes(1, 2).reshape(row_slots * tile_rows, col_slots * tile_columns)[:rows, :columns]


def skew_rows(tiles: Array, ring: RingKind) -> Array:
    """Place B for a compute-shift loop: slot ``(y, x)`` gets the row block that lies ``position(x)`` ring places on."""
    slots = tiles.shape[0]
    blocks = skewed_blocks(ring, slots)
    return np.ascontiguousarray(tiles[blocks, np.arange(slots)])


def skew_columns(tiles: Array, ring: RingKind) -> Array:
    """Place A aligned: slot ``(y, x)`` gets the column block that alignment on the mesh would bring there."""
    slots = tiles.shape[0]
    blocks = skewed_blocks(ring, slots)
    return np.ascontiguousarray(tiles[np.arange(slots)[:, None], blocks])


def skewed_blocks(ring: RingKind, slots: int) -> NDArray[np.int64]:
    """Block of the contraction that slot ``(y, x)`` multiplies first: ring position ``pos(y) + pos(x)``."""
    position = ring_position(ring, slots)
    return ring_order(ring, slots)[(position[:, None] + position[None, :]) % slots]
