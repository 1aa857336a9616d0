"""Where each element of a matrix lies on the mesh: any cut, order, skew, padding or copy, and the way between two.

Prefill and decode want weights and KV cache in different places, often on different numbers of cores. A layout
names for every place in every tile the element of the matrix that lies there, so moving from one layout to another
moves bits as they are.
"""

from dataclasses import dataclass

import numpy as np

from lapidist.hardware.wafer.placement import Array, skewed_blocks
from lapidist.hardware.wafer.ring import Indices
from lapidist.hardware.wafer.simulator import Traffic

PADDING = -1


@dataclass(frozen=True)
class Layout:
    """Of a matrix ``[rows, columns]``.

    Attributes
    ----------
    row, column : the matrix row of each tile row and column of each tile column, ``[y slots, x slots, tile side]``,
        ``PADDING`` where a tile holds a zero instead.
    """

    row: Indices
    column: Indices

    def place(self, matrix: Array) -> Array:
        """Tiles ``[y slots, x slots, tile rows, tile columns]``."""
        padded = np.zeros((matrix.shape[0] + 1, matrix.shape[1] + 1), matrix.dtype)
        padded[:-1, :-1] = matrix
        return padded[self.row[..., :, None], self.column[..., None, :]]

    def collect(self, tiles: Array, rows: int, columns: int) -> Array:
        """The matrix back from tiles; elements that several tiles hold are taken from the last."""
        padded = np.zeros((rows + 1, columns + 1), tiles.dtype)
        padded[self.row[..., :, None], self.column[..., None, :]] = tiles
        return padded[:-1, :-1]


def blocks(total: int, parts: int, size: int | None = None) -> Indices:
    """``0 .. total - 1`` cut into ``parts`` equal pieces, padded at the end; ``[parts, size]``."""
    size = size or -(-total // parts)
    index = np.arange(parts * size)
    return np.where(index < total, index, PADDING).reshape(parts, size)


def grid(row_blocks: Indices, column_blocks: Indices) -> Layout:
    """Rows cut over y by ``row_blocks [y slots, size]``, columns over x by ``column_blocks [x slots, size]``."""
    y, x = len(row_blocks), len(column_blocks)
    return Layout(
        np.broadcast_to(row_blocks[:, None], (y, x, row_blocks.shape[1])),
        np.broadcast_to(column_blocks[None], (y, x, column_blocks.shape[1])),
    )


def crossed(row_blocks: Indices, column_blocks: Indices) -> Layout:
    """Rows cut over x and columns over y: weights whose product contracts the x axis."""
    x, y = len(row_blocks), len(column_blocks)
    return Layout(
        np.broadcast_to(row_blocks[None], (y, x, row_blocks.shape[1])),
        np.broadcast_to(column_blocks[:, None], (y, x, column_blocks.shape[1])),
    )


def skewed(row_blocks: Indices, column_blocks: Indices) -> Layout:
    """As :func:`grid`, with rows skewed for a compute-shift loop on interleaved rings; both have as many slots."""
    first = skewed_blocks("interleaved", len(row_blocks))
    return Layout(row_blocks[first], grid(row_blocks, column_blocks).column)


def relayout(tiles: Array, source: Layout, target: Layout, matrix: tuple[int, int]) -> Array:
    """Tiles of a ``matrix`` of rows and columns from one layout to another, bits unchanged."""
    return target.place(source.collect(tiles, *matrix))


def relayout_traffic(
    source: Layout,
    source_mesh: tuple[int, int],
    target: Layout,
    target_mesh: tuple[int, int],
    matrix: tuple[int, int],
    element_bytes: int,
) -> Traffic:
    """Bytes that cores send and receive when elements move from their core to their next one.

    Both meshes begin at the same corner of the device; counts are for the larger sides, ``[rows, cols]``. Where a
    layout holds an element on several cores, one of them sends it, and each receives it unless it is that one.
    """
    rows, cols = max(source_mesh[0], target_mesh[0]), max(source_mesh[1], target_mesh[1])
    home = np.full((matrix[0] + 1, matrix[1] + 1), PADDING, np.int64)
    home[source.row[..., :, None], source.column[..., None, :]] = _cores(source, source_mesh, cols)
    wanted_at = np.broadcast_to(
        _cores(target, target_mesh, cols), (*target.row.shape, target.column.shape[-1])
    )
    rows_of = np.broadcast_to(target.row[..., :, None], wanted_at.shape)
    columns_of = np.broadcast_to(target.column[..., None, :], wanted_at.shape)
    comes_from = home[rows_of, columns_of]
    moves = (rows_of != PADDING) & (columns_of != PADDING) & (comes_from != wanted_at)
    return Traffic(
        np.bincount(comes_from[moves], minlength=rows * cols).reshape(rows, cols) * element_bytes,
        np.bincount(wanted_at[moves], minlength=rows * cols).reshape(rows, cols) * element_bytes,
    )


def _cores(layout: Layout, mesh: tuple[int, int], stride: int) -> Indices:
    """Number of the core of each tile, ``[y slots, x slots, 1, 1]``, counting ``stride`` cores a row."""
    y = np.arange(layout.row.shape[0]) // (layout.row.shape[0] // mesh[0])
    x = np.arange(layout.row.shape[1]) // (layout.row.shape[1] // mesh[1])
    return (y[:, None] * stride + x[None, :])[..., None, None]
