"""Measuring many kernels within a budget, into tables that a later run continues."""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from lapidist.planner.gpu_measurement.cases import Case
from lapidist.planner.gpu_measurement.device_timer import DeviceTimer, Prepared
from lapidist.planner.gpu_measurement.power_meter import PowerMeter
from lapidist.planner.gpu_measurement.tables import TABLES, MeasuredTable

Progress = Callable[[str, int, int], None]  # what is measured, cases done, and all
_BUSY = 0.05
_WARM_SECONDS, _POWER_SECONDS = 0.3, 1.2
_BLOCK_SECONDS = 20.0


@dataclass(frozen=True)
class Device:
    """What a row says about where it was measured.

    Attributes
    ----------
    l2_bytes : with ``cold``, copies of the data that are together four times as large take turns.
    """

    torch_device: torch.device
    system: str
    version: str
    backend: str = "PyTorch"
    l2_bytes: int = 0


@dataclass
class Session:
    """One run of ``lapidist gpu measure``.

    Rows are measured in a random order, so that a session that ends early has an even sample. They are kept back until
    the device has been looked at idle, before and after them: when somebody else used it then, they are written to
    the ``-contended`` tables and measured again by the next run.

    Parameters
    ----------
    folder : gets one table per kind of operator.
    pause : waits so many seconds, for the device's utilization to be that of others.
    cold : see ``Device.l2_bytes``; otherwise data stay in the cache as far as they fit.
    """

    folder: Path
    device: Device
    timer: DeviceTimer
    meter: PowerMeter
    budget_seconds: float
    cold: bool = False
    seconds_per_case: float = 0.02
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.perf_counter
    progress: Progress = lambda label, done, total: None
    _rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def run(self, cases: Sequence[Case], seed: int = 0) -> dict[str, int]:
        """Measure what the tables lack until the budget is spent; returns how many rows each has then.

        Raises
        ------
        ValueError : a table cannot be read or written.
        """
        tables = {name: MeasuredTable.open(self.folder, name) for name in TABLES}
        left = [case for case in cases if not tables[case.table].has(self._key(case))]
        random.Random(seed).shuffle(left)
        done, total, end = len(cases) - len(left), len(cases), self.clock() + self.budget_seconds
        was_idle = self._is_idle()
        block_end = self.clock() + _BLOCK_SECONDS
        for case in left:
            if self.clock() >= end:
                break
            self.progress(case.table, done, total)
            self._rows.setdefault(case.table, []).append(self._measure(case))
            done += 1
            if self.clock() >= block_end:
                was_idle = self._flush(tables, was_idle)
                block_end = self.clock() + _BLOCK_SECONDS
        self._flush(tables, was_idle)
        self.progress("done", done, total)
        return {name: len(table) for name, table in tables.items()}

    def _measure(self, case: Case) -> dict[str, Any]:
        copies = 1
        if self.cold:
            copies = min(64, max(2, -(-4 * self.device.l2_bytes // case.data_bytes)))
        prepared = self.timer.prepare([case.make(self.device.torch_device) for _ in range(copies)])
        timing = prepared.time(self.seconds_per_case)
        row = self._key(case) | {"seconds": timing.seconds, "spread": timing.spread}
        state = self.meter.state()
        row["watts"] = self._watts(prepared) if case.is_long else math.nan
        row["power_limit_watts"] = math.nan if state is None else state.power_limit_watts
        row["sm_megahertz"] = math.nan if state is None else state.sm_megahertz
        row["temperature_celsius"] = math.nan if state is None else state.temperature_celsius
        row["cold"] = self.cold
        return row

    def _watts(self, prepared: Prepared) -> float:
        """Average over more than a second of nothing else."""
        samples: list[tuple[float, float]] = []

        def look() -> None:
            joules = self.meter.joules()
            if joules is not None:
                samples.append((self.clock(), joules))

        if self.meter.joules() is None:
            return math.nan
        prepared.sustain(_WARM_SECONDS, lambda: None)
        prepared.sustain(_POWER_SECONDS, look)
        return average_watts(samples)

    def _flush(self, tables: dict[str, MeasuredTable], was_idle: bool) -> bool:
        """Write what was measured since the last look at the device; returns whether it is idle now."""
        is_idle = self._is_idle()
        for name, rows in self._rows.items():
            tables[name].add(pd.DataFrame(rows), contended=not (was_idle and is_idle))
        self._rows.clear()
        return is_idle

    def _is_idle(self) -> bool:
        """Whether nobody else uses the device: we do not, for longer than the utilization looks back."""
        if self.meter.state() is None:
            return True
        self.pause(1.2)
        state = self.meter.state()
        return state is None or state.utilization <= _BUSY

    def _key(self, case: Case) -> dict[str, Any]:
        device = self.device
        return {"system": device.system, "backend": device.backend, "version": device.version} | case.key


def average_watts(samples: Sequence[tuple[float, float]]) -> float:
    """Slope of an energy counter, read as (seconds, joules), that moves only every few tens of milliseconds.

    It is taken between the first reading after one move and the first after the last, for which the time is known to
    a reading's distance. NaN of fewer than two moves.

    >>> average_watts([(0.0, 5.0), (0.1, 5.0), (0.2, 25.0), (0.3, 25.0), (0.4, 65.0)])
    200.0
    """
    moves = [later for earlier, later in pairwise(samples) if later[1] != earlier[1]]
    if len(moves) < 2:
        return math.nan
    (start, first), (end, last) = moves[0], moves[-1]
    return (last - first) / (end - start)
