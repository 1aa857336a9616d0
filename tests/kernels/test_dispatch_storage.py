"""Dispatch tables on disk: round trip, merging, broken files, writers at the same time."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lapidist.kernels import dispatch_storage, machine
from lapidist.kernels.dispatch import DispatchTable, WeightShape
from lapidist.kernels.dispatch_storage import (
    SCHEMA,
    VARIABLE,
    DispatchTableError,
    check_writable,
    load_table,
    read_table,
    save_table,
    table_file,
)

CPU = torch.device("cpu")
SHAPE = WeightShape(64, 32, torch.bfloat16)
TABLE = DispatchTable({SHAPE: ((1, "gemv"), (4, "flat"), (20, "library"))})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_round_trip_in_the_cache_directory(cache: Path) -> None:
    file = save_table(TABLE, CPU)
    assert file == table_file(CPU)
    assert file.parent == cache / "lapidist" / "dispatch"
    assert load_table(CPU) == TABLE
    assert sorted(path.name for path in file.parent.iterdir()) == [f".{file.name}.lock", file.name]


def test_without_xdg_it_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert table_file(CPU).parent == tmp_path / "home" / ".cache" / "lapidist" / "dispatch"


def test_the_name_tells_machines_and_thread_counts_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: AMD EPYC (R) 9\nflags\t\t: fpu avx2 avx512f avx512_bf16\n")
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert table_file(CPU).name == "amd-epyc-r-9-avx512-bf16-7-threads.json"
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "none")
    assert table_file(CPU).name.endswith("-7-threads.json")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    assert table_file(torch.device("cuda")).name == "nvidia-h100-80gb-hbm3.json"


def test_cache_size_of_a_machine_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CACHES", tmp_path)
    assert machine.last_level_cache_bytes() == 32 << 20
    for index, size in enumerate(("48K", "2M", "?")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert machine.last_level_cache_bytes() == 2 << 20


def test_the_environment_names_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / "mine.json"
    monkeypatch.setenv(VARIABLE, str(file))
    assert save_table(TABLE, CPU) == file
    assert load_table(CPU) == TABLE


def test_saving_adds_to_what_is_there() -> None:
    other = WeightShape(64, 32, torch.float32)
    save_table(TABLE, CPU)
    save_table(DispatchTable({other: ((1, "library"),)}), CPU)
    assert load_table(CPU).entries == {**TABLE.entries, other: ((1, "library"),)}
    save_table(DispatchTable({SHAPE: ((1, "flat"),)}), CPU)
    assert load_table(CPU).entries == {SHAPE: ((1, "flat"),), other: ((1, "library"),)}


@given(
    st.dictionaries(
        st.builds(
            WeightShape, st.integers(1, 9), st.integers(1, 9), st.sampled_from([torch.float32, torch.float16])
        ),
        st.sets(st.integers(2, 99)).map(lambda later: tuple((m, f"é{m}") for m in (1, *sorted(later)))),
        max_size=6,
    )
)
def test_any_table_survives(entries: dict[Any, Any]) -> None:
    file = table_file(CPU)
    file.unlink(missing_ok=True)
    save_table(DispatchTable(entries), CPU)
    assert read_table(file).entries == entries


def entry(**changes: Any) -> str:
    row = {"dtype": "bfloat16", "n": 64, "k": 32, "inflections": [[1, "gemv"]]} | changes
    return json.dumps({"schema": SCHEMA, "entries": [row]})


BROKEN = {
    "empty": ("", "not valid JSON"),
    "cut": (entry()[:-20], "not valid JSON"),
    "deep": ("[" * 100_000, "not valid JSON"),
    "binary": ("\x00\x01", "not valid JSON"),
    "list": ("[]", "not a dispatch table"),
    "old": (json.dumps({"schema": 0, "entries": []}), "not a dispatch table of schema 1"),
    "no entries": (json.dumps({"schema": SCHEMA}), "not valid"),
    "entries": (json.dumps({"schema": SCHEMA, "entries": [3]}), "not valid"),
    "dtype": (entry(dtype="int3"), "not valid"),
    "list dtype": (entry(dtype=[]), "not valid"),
    "size": (entry(n=0), "not valid"),
    "text size": (entry(n="64"), "not valid"),
    "true": (entry(n=True), "not valid"),
    "no pieces": (entry(inflections=[]), "not valid"),
    "start": (entry(inflections=[[2, "gemv"]]), "not valid"),
    "order": (entry(inflections=[[1, "gemv"], [1, "flat"]]), "not valid"),
    "name": (entry(inflections=[[1, 5]]), "not valid"),
    "pair": (entry(inflections=[[1]]), "not valid"),
    "unknown": (entry(inflections=[[1, "abacus"]]), "unknown implementation 'abacus'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_one_warning_and_the_default(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    text, message = BROKEN[kind]
    file = table_file(CPU)
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert load_table(CPU, names=("gemv", "flat", "library")) == DispatchTable()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert message in record.getMessage()
    assert str(file) in record.getMessage()
    assert "\n" not in record.getMessage()


def test_a_broken_file_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    file = table_file(CPU)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"\xff\xfe")
    save_table(TABLE, CPU)
    assert load_table(CPU) == TABLE
    assert len(caplog.records) == 1


def test_no_file_is_no_warning_unless_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_table(CPU) == DispatchTable()
    assert not caplog.records
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none.json"))
    assert load_table(CPU) == DispatchTable()
    assert "none.json does not exist" in caplog.text


@pytest.mark.parametrize("place", ["file/below.json", "directory"])
def test_a_place_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    monkeypatch.setenv(VARIABLE, str(tmp_path / place))
    for use in (lambda: check_writable(CPU), lambda: save_table(TABLE, CPU)):
        with pytest.raises(ValueError, match=VARIABLE) as raised:
            use()
        assert str(tmp_path / place) in str(raised.value)
        assert "\n" not in str(raised.value)
        assert "None" not in str(raised.value)
    with pytest.raises(DispatchTableError):
        read_table(tmp_path / place)


def test_checking_leaves_nothing_behind() -> None:
    file = check_writable(CPU)
    assert list(file.parent.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    file = save_table(TABLE, CPU)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(dispatch_storage.os, "replace", fail)
        with pytest.raises(ValueError, match="No space left"):
            save_table(DispatchTable({SHAPE: ((1, "flat"),)}), CPU)
    assert load_table(CPU) == TABLE
    assert not list(file.parent.glob("*.tmp"))


def test_writers_at_the_same_time_lose_nothing() -> None:
    tables = [DispatchTable({WeightShape(n, 1, torch.float32): ((1, "flat"),)}) for n in range(1, 41)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda table: save_table(table, CPU), tables))
    assert len(load_table(CPU).entries) == 40
