"""Tables as files, whole and damaged."""

import gzip
from pathlib import Path

import pandas as pd
import pytest

from lapidist.hardware.gpu.table_file import read_table_file, write_table_file

TABLE = pd.DataFrame({"m": [1, 2], "name": ["a", "b"]})


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    write_table_file(TABLE, tmp_path / name)
    pd.testing.assert_frame_equal(read_table_file(tmp_path / name), TABLE, check_dtype=False)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.parquet", b"PAR1 nothing", "cannot be read"),
        ("a.parquet", b"", "cannot be read"),
        ("a.parquet", None, "cannot be read"),
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"\xff\xfe\xfa", "cannot be read"),
        ("a.csv", b'a,b\n1,2,3\n"x', "cannot be read"),
        ("a.csv.gz", b"plain", "cannot be read"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 99)[:-9], "cannot be read"),
        ("a.zip", b"PK", r"ends in \.parquet, \.csv or \.csv\.gz"),
    ],
)
def test_a_bad_file_is_named(name: str, contents: bytes | None, message: str, tmp_path: Path) -> None:
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(ValueError, match=message) as caught:
        read_table_file(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        write_table_file(TABLE, tmp_path / "absent" / "a.csv")
    with pytest.raises(ValueError, match=r"ends in \.parquet or \.csv"):
        write_table_file(TABLE, tmp_path / "a.xlsx")
