"""Everything but CUDA and NVML: real kernels on the CPU, a wall clock, and a meter with an energy of its own."""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lapidist.hardware.gpu.attention_measurements import read_attention_table
from lapidist.hardware.gpu.measurements import read_gemm_table
from lapidist.planner.gpu_measurement.cases import (
    GEMM_DTYPES,
    Case,
    all_cases,
    attention_cases,
    element_wise_cases,
    gemm_cases,
)
from lapidist.planner.gpu_measurement.device_timer import Timing, WallClockTimer
from lapidist.planner.gpu_measurement.power_meter import DeviceState, NvmlMeter, Unmetered
from lapidist.planner.gpu_measurement.session import Device, Session, average_watts
from tests.cli.command import command

CPU = Device(torch.device("cpu"), "h100", "2.0", l2_bytes=1 << 12)


def small_cases() -> list[Case]:
    gemms = gemm_cases(["bf16", "fp16"], sites=[(8, 16), (16, 8)], rows=[1, 5])
    attention = [case for case in attention_cases([(4, 2, 8)]) if case.key["kv_length"] <= 128][:3]
    return [*gemms, *attention, *element_wise_cases(columns=[32], rows=[4])]


@dataclass
class Meter:
    """A device that draws 100 W and is used by others when told so."""

    clock: Callable[[], float]
    busy: list[float] = field(default_factory=list)

    def state(self) -> DeviceState:
        utilization = self.busy.pop(0) if len(self.busy) > 1 else (self.busy or [0.0])[0]
        return DeviceState(utilization, 1500.0, 50.0, 400.0)

    def joules(self) -> float:
        return 100 * math.floor(self.clock() / 0.02) * 0.02


class Ticking:
    """A clock that is a millisecond later at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-3
        return self.now


def session(folder: Path, **changes: Any) -> Session:
    clock = Ticking()
    settings: dict[str, Any] = {
        "device": CPU,
        "timer": WallClockTimer(clock),
        "meter": Meter(clock),
        "budget_seconds": 1e6,
        "pause": lambda seconds: None,
        "clock": clock,
    } | changes
    return Session(folder, **settings)


def test_the_tables_are_what_the_fits_read(tmp_path: Path) -> None:
    cases = small_cases()
    counts = session(tmp_path).run(cases)
    assert counts == {"gemm": 8, "attention": 3, "element_wise": 3}
    gemm = read_gemm_table(tmp_path / "gemm.parquet")
    assert set(gemm["dtype"]) == {"bf16", "fp16"}
    assert (gemm["seconds"] > 0).all()
    assert (gemm["power_limit_watts"] == 400).all()
    attention = read_attention_table(tmp_path / "attention.parquet")
    assert set(attention["phase"]) <= {"prefill", "decode"}
    conditions = pd.read_parquet(tmp_path / "gemm.parquet")
    assert {"spread", "sm_megahertz", "temperature_celsius", "cold"} <= set(conditions)


def test_a_second_run_continues_the_first(tmp_path: Path) -> None:
    cases = small_cases()
    seen: list[tuple[str, int, int]] = []
    first = session(tmp_path, budget_seconds=0.04).run(cases)
    assert 0 < sum(first.values()) < len(cases)
    before = pd.read_parquet(tmp_path / "gemm.parquet") if first["gemm"] else None
    second = session(tmp_path, progress=lambda *state: seen.append(state)).run(cases)
    assert sum(second.values()) == len(cases)
    assert seen[0][1] == sum(first.values())
    assert seen[-1] == ("done", len(cases), len(cases))
    if before is not None:
        after = pd.read_parquet(tmp_path / "gemm.parquet")
        pd.testing.assert_frame_equal(after.head(len(before)), before)
    assert session(tmp_path).run(cases) == second


def test_rows_of_a_shared_device_are_kept_apart_and_measured_again(tmp_path: Path) -> None:
    cases = small_cases()
    meter = Meter(Ticking(), busy=[0.9])
    assert sum(session(tmp_path, meter=meter).run(cases).values()) == 0
    assert not (tmp_path / "gemm.parquet").exists()
    assert len(pd.read_parquet(tmp_path / "gemm-contended.parquet")) == 8
    assert session(tmp_path).run(cases)["gemm"] == 8


def test_power_is_that_of_long_kernels_alone(tmp_path: Path) -> None:
    make = small_cases()[0].make
    key = {"dtype": "bf16", "m": 1, "n": 8, "k": 16}
    long = Case("gemm", key, 100, make, is_long=True)
    short = Case("gemm", key | {"m": 2}, 100, make)
    session(tmp_path).run([long, short])
    watts = pd.read_parquet(tmp_path / "gemm.parquet").set_index("m")["watts"]
    assert watts[1] == pytest.approx(100, rel=0.05)
    assert math.isnan(watts[2])


def test_without_a_meter_there_are_times_only(tmp_path: Path) -> None:
    session(tmp_path, meter=Unmetered()).run(small_cases()[:2])
    rows = pd.read_parquet(tmp_path / "gemm.parquet")
    assert rows["watts"].isna().all()
    assert (rows["seconds"] > 0).all()


def test_cold_data_are_copies_that_take_turns(tmp_path: Path) -> None:
    made = []
    case = small_cases()[0]
    counting = Case(case.table, case.key, 100, lambda device: made.append(device) or case.make(device))  # type: ignore[func-returns-value]
    session(tmp_path, cold=True).run([counting])
    assert len(made) == 64  # at most; 4 KiB of cache would want 164
    assert pd.read_parquet(tmp_path / "gemm.parquet")["cold"].all()


@pytest.mark.parametrize("content", [b"", b"no parquet"])
def test_a_broken_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "gemm.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"gemm\.parquet: cannot be read"):
        session(tmp_path).run(small_cases())


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "gemm.parquet")
    with pytest.raises(ValueError, match="column 'system' is missing"):
        session(tmp_path).run(small_cases())


def test_no_case_is_there_twice() -> None:
    cases = all_cases(GEMM_DTYPES)
    assert len({(case.table, *case.key.values()) for case in cases}) == len(cases)
    assert {case.table for case in cases} == {"gemm", "attention", "element_wise"}
    assert 1000 < len(cases) < 4000


def test_the_energy_counter_is_read_at_its_moves() -> None:
    steps = [(0.005 * look, 300 * 0.1 * math.floor(0.005 * look / 0.1)) for look in range(300)]
    assert average_watts(steps) == pytest.approx(300, rel=0.01)
    assert math.isnan(average_watts(steps[:10]))


def test_the_median_is_not_moved_by_an_outlier() -> None:
    assert Timing.of([1.0, 1.0, 1.0, 1.0, 50.0]).seconds == 1.0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_told_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = command(monkeypatch, capsys)("gpu", "measure", tmp_path / "out")
    assert result.returncode == 2
    assert "no NVIDIA GPU" in result.stderr
    assert not (tmp_path / "out").exists()


def test_power_without_its_package_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ValueError, match="nvidia-ml-py, which is not installed"):
        NvmlMeter()
