"""Tables as files: Parquet or CSV, read with an error that names the file, written whole or not at all."""

import os
import zlib
from pathlib import Path

import pandas as pd
import pyarrow as pa

# What pandas and pyarrow raise for a file that is absent, damaged or of another kind. Parser and encoding errors are
# ValueErrors.
_UNREADABLE = (OSError, EOFError, ValueError, zlib.error, pa.ArrowException)


def read_table_file(path: Path) -> pd.DataFrame:
    """
    Raises
    ------
    ValueError : the ending is none of ``.parquet``, ``.csv`` and ``.csv.gz``, or the file cannot be read.
    """
    if path.suffix != ".parquet" and not path.name.endswith((".csv", ".csv.gz")):
        raise ValueError(f"{path}: a table of measurements ends in .parquet, .csv or .csv.gz")
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except _UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None


def write_table_file(table: pd.DataFrame, path: Path) -> None:
    """
    Raises
    ------
    ValueError : the ending is neither ``.parquet`` nor ``.csv``, or the folder cannot be written to.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"{path}: a table of measurements ends in .parquet or .csv")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.suffix == ".parquet":
            table.to_parquet(temporary, compression="zstd", index=False)
        else:
            table.to_csv(temporary, index=False)
        os.replace(temporary, path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror})") from None
    finally:
        temporary.unlink(missing_ok=True)
