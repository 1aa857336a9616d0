"""The tables that a session fills: Parquet files in the schemas of ``lapidist.hardware.gpu``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lapidist.hardware.gpu.table_file import read_table_file, write_table_file

_DEVICE = ("system", "backend", "version")
# Columns that tell a row from others. The first two tables are those of hardware.gpu.measurements and
# hardware.gpu.attention_measurements; columns beyond theirs say under what conditions a row was measured.
TABLES: dict[str, tuple[str, ...]] = {
    "gemm": (*_DEVICE, "dtype", "m", "n", "k"),
    "attention": (
        *_DEVICE,
        *("phase", "batch", "query_length", "kv_length", "heads", "kv_heads", "head_dim", "window"),
        *("compute_bytes", "kv_bytes"),
    ),
    "element_wise": (*_DEVICE, "operator", "rows", "columns", "dtype"),
}


@dataclass
class MeasuredTable:
    """A table on disk; rows measured while somebody else used the device go to a file of their own."""

    file: Path
    key_columns: tuple[str, ...]
    rows: pd.DataFrame
    _keys: set[tuple[Any, ...]]

    @classmethod
    def open(cls, folder: Path, name: str) -> "MeasuredTable":
        """Of a folder; empty where there is none yet.

        Raises
        ------
        ValueError : the file cannot be read or lacks a column.
        """
        file, columns = folder / f"{name}.parquet", TABLES[name]
        rows = read_table_file(file) if file.exists() else pd.DataFrame(columns=list(columns))
        absent = [column for column in columns if column not in rows]
        if absent:
            raise ValueError(f"{file}: column {absent[0]!r} is missing; name another folder")
        return cls(file, columns, rows, set(rows[list(columns)].itertuples(index=False, name=None)))

    def __len__(self) -> int:
        return len(self.rows)

    def has(self, key: Mapping[str, Any]) -> bool:
        return tuple(key[column] for column in self.key_columns) in self._keys

    def add(self, rows: pd.DataFrame, contended: bool) -> None:
        """Append rows and write the file.

        Raises
        ------
        ValueError : it cannot be written.
        """
        if contended:
            file = self.file.with_name(f"{self.file.stem}-contended.parquet")
            before = [read_table_file(file)] if file.exists() else []
            write_table_file(pd.concat([*before, rows], ignore_index=True), file)
            return
        self.rows = pd.concat([self.rows, rows], ignore_index=True) if len(self.rows) else rows
        self._keys |= set(rows[list(self.key_columns)].itertuples(index=False, name=None))
        write_table_file(self.rows, self.file)
