"""Tables of measured attention kernels: one schema for what users measure and for public collections.

======================  ======================================================================================
column                  meaning
======================  ======================================================================================
system                  GPU: a name or alias of a data sheet
backend, version        the software whose kernels ran
phase                   ``prefill`` or ``decode``
batch                   equal sequences in one kernel
query_length            new tokens of each; 1 in decoding
kv_length               context of each, new tokens included
heads, kv_heads         of one rank
head_dim                of one head
window                  sliding window; 0 without
compute_bytes           of an element as multiplied: 2, or 1 for fp8
kv_bytes                of an element of the cache
seconds                 time of one kernel
watts                   average board power, where measured (else absent or NaN)
======================  ======================================================================================
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lapidist.hardware.gpu.attention_law import AttentionShapes
from lapidist.hardware.gpu.splits import Split, split_by_mask
from lapidist.hardware.gpu.table_file import read_table_file

SHAPE_COLUMNS = (
    "batch",
    "query_length",
    "kv_length",
    "heads",
    "kv_heads",
    "head_dim",
    "window",
    "compute_bytes",
    "kv_bytes",
)
KEY_COLUMNS = ("system", "backend", "version", "phase")
_PHASES = {"context": "prefill", "generation": "decode", "prefill": "prefill", "decode": "decode"}
_BYTES = {"bfloat16": 2.0, "float16": 2.0, "fp8": 1.0}


def read_attention_table(path: Path) -> pd.DataFrame:
    """Measured attention kernels from Parquet, in this schema or aiconfigurator's (``latency_ms``, ``isl``, ``step``).

    Raises
    ------
    ValueError : the file cannot be read, a column is absent, or a value is not usable.
    """
    table = read_table_file(path)
    if "latency_ms" in table:
        table = _from_aiconfigurator(table, path)
    required = (*KEY_COLUMNS, *SHAPE_COLUMNS, "seconds")
    absent = [column for column in required if column not in table]
    if absent:
        raise ValueError(
            f"{path}: column {absent[0]!r} is missing; a measured kernel has {', '.join(required)}"
        )
    if not (np.isfinite(table["seconds"]) & (table["seconds"] > 0)).all():
        raise ValueError(f"{path}: seconds must be positive numbers")
    table = table[[*required, *(["watts"] if "watts" in table else [])]]
    return table.drop_duplicates([*KEY_COLUMNS, *SHAPE_COLUMNS]).reset_index(drop=True)


def shapes_of(table: pd.DataFrame) -> AttentionShapes:
    """The kernels of a table, in its order."""
    return AttentionShapes.of(*(table[column].to_numpy() for column in SHAPE_COLUMNS))


def head_configs(table: pd.DataFrame) -> NDArray[np.str_]:
    """``heads_kvheads_headdim`` of each row: what a held-out model differs in."""
    columns = [
        table[c].astype(int).astype(str).to_numpy(dtype=str) for c in ("heads", "kv_heads", "head_dim")
    ]
    return np.array(["_".join(row) for row in zip(*columns, strict=True)])


def head_config_holdout(table: pd.DataFrame, seed: int = 0) -> Split:
    """A fifth of the head configurations held out whole, as a new model is to a fitted GPU."""
    labels = head_configs(table)
    groups = np.array(sorted(set(labels)))
    held = groups[np.random.RandomState(seed).permutation(len(groups))[: len(groups) // 5]]
    return split_by_mask("head configurations", np.isin(labels, held))


def largest_fifth(table: pd.DataFrame) -> Split:
    """The fifth of the rows with the most tokens (batch x context) held out: extrapolation."""
    tokens = table["batch"].to_numpy(float) * table["kv_length"].to_numpy(float)
    return split_by_mask("largest fifth of batch x context", tokens > np.quantile(tokens, 0.8))


def _from_aiconfigurator(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    try:
        found = pd.DataFrame(
            {
                "system": table["system"].astype(str),
                "backend": table["backend"].astype(str),
                "version": table["version"].astype(str),
                "phase": table["phase"].astype(str).map(_PHASES),
                "batch": table["batch_size"].astype(float),
                "kv_length": (table["isl"] + table["step"]).astype(float),
                "heads": table["num_heads"].astype(float),
                "kv_heads": table["num_key_value_heads"].astype(float),
                "head_dim": table["head_dim"].astype(float),
                "window": table["window_size"].astype(float).fillna(0.0),
                "compute_bytes": table["attn_dtype"].astype(str).map(_BYTES),
                "kv_bytes": table["kv_cache_dtype"].astype(str).map(_BYTES),
                "seconds": table["latency_ms"].astype(float) / 1e3,
            }
        )
        found["query_length"] = np.where(found["phase"] == "prefill", table["isl"].astype(float), 1.0)
    except KeyError as error:
        raise ValueError(f"{path}: column {error} is missing") from None
    if found.isna().any().any():
        column = found.columns[found.isna().any()][0]
        raise ValueError(f"{path}: {column} has a value that is not understood")
    if "power_w" in table:
        found["watts"] = table["power_w"].astype(float)
    return found
