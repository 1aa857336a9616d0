"""How many tokens a KV cache on a mesh can grow to (WaferLLM section 4.5, table 5)."""

from math import floor

import numpy as np

from lapidist.hardware.wafer.ring import Indices

_ROUNDING = 1e-9
"""Relative room for products of decimal fractions that should be whole numbers."""


def even_rows(tokens: int, rows: int) -> Indices:
    """Tokens of each row when they lie as evenly as can be, upper rows first; ``[rows]``."""
    return tokens // rows + (np.arange(rows) < tokens % rows)


def concat_capacity(row_capacity: float) -> int:
    """New tokens until the last row is full, when all of them go there; ``row_capacity`` may be fractional."""
    return floor(row_capacity * (1 + _ROUNDING))


def shift_capacity(row_capacity: float, rows: int) -> int:
    """New tokens until all rows are full, when waves keep them even."""
    return floor(rows * row_capacity * (1 + _ROUNDING))


def row_capacity(free_bytes_per_core: float, kv_bytes_per_token_and_core: float) -> float:
    """Tokens that a row has room for, as a fraction: free memory by what one token takes of it on each core.

    Raises
    ------
    ValueError : a token takes nothing, or memory is negative.
    """
    if kv_bytes_per_token_and_core <= 0 or free_bytes_per_core < 0:
        raise ValueError(
            f"a cache needs free memory and tokens of some size, got {free_bytes_per_core} bytes free "
            f"and {kv_bytes_per_token_and_core} bytes a token"
        )
    return free_bytes_per_core / kv_bytes_per_token_and_core
