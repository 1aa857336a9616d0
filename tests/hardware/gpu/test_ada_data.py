"""Reading the Ada study's measurements; what is absent or broken is named."""

from pathlib import Path

import pandas as pd
import pytest

from lapidist.hardware.gpu.ada_data import CONFIGURATION, NAIVE_FILE, RUNS_FILE, clean_medians, read_ada_data
from tests.hardware.gpu.measured_data import measured_data


def test_counts_and_medians() -> None:
    folder = measured_data(RUNS_FILE, NAIVE_FILE, "gpperf_clean_config_medians.csv")
    data = read_ada_data(folder)
    assert len(data.runs) == 16_128
    assert len(data.pool) == 2_595
    found = clean_medians(data.runs).set_index(CONFIGURATION)["runtime_ms"]
    table = pd.read_csv(folder / "gpperf_clean_config_medians.csv").rename(
        columns={"klayout": "transposition"}
    )
    expected = table.set_index(CONFIGURATION)["runtime_ms"]
    assert len(expected) == 536
    pd.testing.assert_series_equal(found.sort_index(), expected.sort_index())


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{RUNS_FILE}: no such file; the folder must hold"):
        read_ada_data(tmp_path)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / RUNS_FILE).write_bytes(b"PAR1 cut short")
    with pytest.raises(ValueError, match=f"{RUNS_FILE}: cannot be read"):
        read_ada_data(tmp_path)


def test_words_for_numbers_are_named(tmp_path: Path) -> None:
    runs = pd.read_parquet(measured_data(RUNS_FILE) / RUNS_FILE).head()
    runs.assign(runtime_ms="fast").to_parquet(tmp_path / RUNS_FILE)
    with pytest.raises(ValueError, match="the column 'runtime_ms' holds something that is no number"):
        read_ada_data(tmp_path)
    runs.iloc[:0].to_parquet(tmp_path / RUNS_FILE)
    with pytest.raises(ValueError, match="holds no rows"):
        read_ada_data(tmp_path)


def test_a_lacking_column_is_named(tmp_path: Path) -> None:
    pd.DataFrame({"M": [1]}).to_parquet(tmp_path / RUNS_FILE)
    with pytest.raises(ValueError, match="lacks the column 'N'"):
        read_ada_data(tmp_path)
