"""Tables of measured GEMMs: the own schema and public ones, and what is refused."""

from pathlib import Path

import pandas as pd
import pytest

from lapidist.hardware.gpu.gemm_format import gemm_format
from lapidist.hardware.gpu.measurements import read_gemm_table, select, write_gemm_table
from tests.hardware.gpu.measured_data import measured_data

ROW = {"system": "l4", "backend": "torch", "version": "2.6", "dtype": "bf16", "m": 1, "n": 2, "k": 3}


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame([{**ROW, "seconds": 1e-5, **columns}])


@pytest.mark.parametrize("name", ["gemm.parquet", "gemm.csv"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    write_gemm_table(table(watts=71.5), tmp_path / name)
    found = read_gemm_table(tmp_path / name)
    assert found.loc[0, ["system", "dtype", "m", "n", "k"]].to_list() == ["l4", "bf16", 1, 2, 3]
    assert found["seconds"][0] == pytest.approx(1e-5)
    assert found["watts"][0] == pytest.approx(71.5)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_milliseconds_of_public_tables(tmp_path: Path) -> None:
    public = pd.DataFrame(
        [{**ROW, "dtype": "bfloat16", "latency_ms": 0.02, "power_w": 60.0, "power_limit_w": 72.0}]
    )
    public.to_csv(tmp_path / "a.csv", index=False)
    found = read_gemm_table(tmp_path / "a.csv")
    assert found["seconds"][0] == pytest.approx(2e-5)
    assert found["dtype"][0] == "bf16"
    assert found["power_limit_watts"][0] == 72


def test_defaults_fill_key_columns(tmp_path: Path) -> None:
    pd.DataFrame([{"gpu": "a100", "m": 1, "n": 1, "k": 1, "latency_ms": 1.0}]).to_csv(tmp_path / "a.csv")
    found = read_gemm_table(tmp_path / "a.csv", backend="vidur", version="-", dtype="fp16")
    assert found.loc[0, ["system", "backend", "dtype"]].to_list() == ["a100", "vidur", "fp16"]
    with pytest.raises(ValueError, match="no key column"):
        read_gemm_table(tmp_path / "a.csv", m="3")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"m": 0}, "row 1 has m 0"),
        ({"seconds": float("nan")}, "row 1 has seconds nan"),
        ({"k": "wide"}, "row 1 has k wide"),
        ({"dtype": "fp12"}, "unknown GEMM format 'fp12'"),
    ],
)
def test_bad_values_name_the_row(tmp_path: Path, columns: dict[str, object], sentence: str) -> None:
    table(**columns).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ValueError, match=sentence):
        read_gemm_table(tmp_path / "a.csv")


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "a.txt").write_text("x")
    table().drop(columns="n").to_csv(tmp_path / "a.csv", index=False)
    for name, sentence in (
        ("a.parquet", "cannot be read"),
        ("a.txt", "ends in"),
        ("a.csv", "column 'n' is missing"),
    ):
        with pytest.raises(ValueError, match=sentence):
            read_gemm_table(tmp_path / name)
    with pytest.raises(ValueError, match="ends in"):
        write_gemm_table(table(), tmp_path / "b.txt")


def test_select_tells_what_there_is() -> None:
    rows = table()
    assert len(select(rows, system="l4", dtype="bf16")) == 1
    with pytest.raises(ValueError, match="no measurement with dtype 'fp8'; the table has bf16"):
        select(rows, dtype="fp8")


def test_formats() -> None:
    assert gemm_format("bfloat16").name == "bf16"
    assert gemm_format("W4A16").weight_bytes == 0.5
    with pytest.raises(ValueError, match="known are fp32"):
        gemm_format("fp12")


def test_public_collection_is_read_whole() -> None:
    folder = measured_data("aiconfigurator_gemm.parquet")
    found = read_gemm_table(folder / "aiconfigurator_gemm.parquet")
    assert len(found) > 1_600_000
    assert set(found["dtype"].unique()) >= {"bf16", "fp8", "fp8_block", "nvfp4", "int4_wo", "int8_wo", "sq"}
