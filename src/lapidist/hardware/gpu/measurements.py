"""Tables of measured GEMM times: one schema for what ``lapidist gpu measure`` writes and for public collections.

====================  =======================================================================================
column                meaning
====================  =======================================================================================
system                GPU: a name or alias of a data sheet
backend, version      the software whose kernels ran, such as TRTLLM 1.3.0rc20; times differ between versions
dtype                 a format of :mod:`lapidist.hardware.gpu.gemm_format`
m, n, k               ``output [m, n] = input [m, k] @ weight [n, k].T``
seconds               time of one call
watts                 average board power over the call, where measured (else absent or NaN)
power_limit_watts     the power limit in force, where known
====================  =======================================================================================
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.table_file import read_table_file, write_table_file

KEY_COLUMNS = ("system", "backend", "version", "dtype")
REQUIRED_COLUMNS = (*KEY_COLUMNS, "m", "n", "k", "seconds")
OPTIONAL_COLUMNS = ("watts", "power_limit_watts")


def read_gemm_table(path: Path, **defaults: str) -> pd.DataFrame:
    """A table of measured GEMMs from Parquet or CSV in this schema or in a known public one.

    Understood besides the own schema: aiconfigurator (``latency_ms``, ``power_w``) and Vidur (``gpu``, ``latency_ms``),
    both in milliseconds. ``defaults`` fill key columns that the file lacks.

    Raises
    ------
    ValueError : the file cannot be read, a column is absent, or a value is not usable; the sentence names the row.
    """
    unknown = set(defaults) - set(KEY_COLUMNS)
    if unknown:
        raise ValueError(f"{sorted(unknown)[0]!r} is no key column; they are {', '.join(KEY_COLUMNS)}")
    table = _own_names(read_table_file(path))
    for column, value in defaults.items():
        if column not in table:
            table[column] = value
    return check_gemm_table(table, str(path))


def check_gemm_table(table: pd.DataFrame, where: str = "table") -> pd.DataFrame:
    """The columns of the schema, checked; formats by their one name.

    Raises
    ------
    ValueError : see :func:`read_gemm_table`.
    """
    absent = [column for column in REQUIRED_COLUMNS if column not in table]
    if absent:
        raise ValueError(
            f"{where}: column {absent[0]!r} is missing; a measured GEMM has {', '.join(REQUIRED_COLUMNS)}"
        )
    if table.empty:
        raise ValueError(f"{where}: no rows")
    kept = table[[*REQUIRED_COLUMNS, *(c for c in OPTIONAL_COLUMNS if c in table)]].reset_index(drop=True)
    for column in ("m", "n", "k", "seconds"):
        kept[column] = _positive(kept[column], column, where)
    for column in ("m", "n", "k"):
        kept[column] = kept[column].astype(np.int64)
    for column in KEY_COLUMNS:
        kept[column] = kept[column].astype(str).astype("category")
    kept["dtype"] = kept["dtype"].cat.rename_categories(lambda name: gemm_format(name).name)
    return kept


def write_gemm_table(table: pd.DataFrame, path: Path) -> None:
    """Write the checked table as ``.parquet`` or ``.csv``; it appears whole or not at all.

    Raises
    ------
    ValueError : the table is not one, the ending is another, or the folder cannot be written to.
    """
    write_table_file(check_gemm_table(table), path)


def select(table: pd.DataFrame, **keys: str) -> pd.DataFrame:
    """The rows of one system, backend, version and dtype (or of those given), numbered anew.

    Raises
    ------
    ValueError : no such row; the sentence tells what the table has instead.
    """
    rows = np.ones(len(table), dtype=bool)
    for column, value in keys.items():
        hit = (table[column] == value).to_numpy()
        if not (rows & hit).any():
            found = ", ".join(map(str, table.loc[rows, column].unique()))
            raise ValueError(f"no measurement with {column} {value!r}; the table has {found}")
        rows &= hit
    return table[rows].reset_index(drop=True)


def _own_names(table: pd.DataFrame) -> pd.DataFrame:
    table = table.copy()
    if "seconds" not in table and "latency_ms" in table:
        table["seconds"] = table["latency_ms"].astype(float) / 1e3
    renames = {"gpu": "system", "power_w": "watts", "power_limit_w": "power_limit_watts"}
    return table.rename(columns={old: new for old, new in renames.items() if new not in table})


def _positive(values: "pd.Series[Any]", column: str, where: str) -> "pd.Series[Any]":
    numbers = pd.to_numeric(values, errors="coerce").astype(float)
    bad = ~(np.isfinite(numbers) & (numbers > 0)).to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"{where}: row {row + 1} has {column} {values.iloc[row]}; it must be a positive number"
        )
    return numbers


def group_keys(table: pd.DataFrame) -> Sequence[tuple[str, str, str, str]]:
    """Distinct (system, backend, version, dtype), sorted."""
    rows = table[list(KEY_COLUMNS)].drop_duplicates()
    return sorted(tuple(map(str, row)) for row in rows.itertuples(index=False))  # type: ignore[misc]
