"""How large a tile of the attention kernel is."""

from dataclasses import dataclass

import torch

# Of keys and values. Their places come from the page table, which takes Triton a stage of its own: with five stages
# a step is on its way while another is worked on, with three several programs of a multiprocessor must overlap.
_BYTES_PER_STEP = 32 << 10
_BYTES_FOR_TWO_STEPS = 160 << 10
_LEAST_ROWS, _MOST_ROWS, _MOST_ROWS_IN_FLOAT32 = 16, 128, 32
# A sequence with so few queries is one tile, whose keys are split.
_FEW_QUERIES, _ROWS_OF_FEW = 8, 64


@dataclass(frozen=True)
class TileShape:
    """Attributes
    ----------
    queries : of one sequence; with the heads that share a KV head they make up the rows.
    rows : powers of two, as are the next two; at least the queries times these heads.
    keys : of one step.
    width : of a query, key and value; what is beyond ``head_dim`` is padding.
    warps, stages : of Triton's launch.
    """

    queries: int
    rows: int
    keys: int
    width: int
    warps: int
    stages: int


def few_queries(group: int, max_query_length: int) -> int:
    """Up to how many new tokens a sequence is one tile.

    Where no sequence has many, that is all of them; beside prompts it is as many as fit into the smallest tile.
    """
    most = max(1, min(_FEW_QUERIES, _ROWS_OF_FEW // group))
    if max_query_length <= most:
        return max_query_length
    return min(max_query_length, max(1, _LEAST_ROWS // group))


def tile_shape(
    group: int, head_dim: int, dtype: torch.dtype, queries: int | None, shared_bytes: int
) -> TileShape:
    """The tile for sequences of at most ``queries`` new tokens, or of any number if that is None.

    Parameters
    ----------
    group : query heads that share a KV head, at most 128.
    shared_bytes : shared memory that a program can have.
    """
    width = power_of_two(head_dim)
    keys = max(16, _BYTES_PER_STEP // (2 * width * dtype.itemsize))
    if queries is not None:
        rows = max(_LEAST_ROWS, power_of_two(group * queries))
        stages = 5 if shared_bytes >= _BYTES_FOR_TWO_STEPS else 3
        return TileShape(queries, rows, min(128, keys), width, 4, stages)
    # The sums of a tile are in registers, of which products in float32 need many for themselves.
    most = _MOST_ROWS if dtype != torch.float32 else _MOST_ROWS_IN_FLOAT32
    rows = max(most if width <= 128 else most // 2, power_of_two(group))
    return TileShape(rows // group, rows, min(64, keys), width, 8 if rows * width >= 128 * 64 else 4, 3)


def power_of_two(number: int) -> int:
    """The smallest that is not less; at least 16, the least extent of Triton's matrix product."""
    return max(16, 1 << (number - 1).bit_length())
