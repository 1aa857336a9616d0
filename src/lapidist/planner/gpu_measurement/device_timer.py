"""Timing short kernels: graphs of calls on a GPU, plain calls on a CPU."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

Call = Callable[[], object]
_WARM_UPS = 3
_LEAST_REPEATS, _MOST_REPEATS = 5, 100
_GRAPH_SECONDS = 1e-3  # well above the half microsecond that CUDA events resolve
_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Timing:
    """Median of one call, and the distance of its quartiles as a share of it."""

    seconds: float
    spread: float

    @staticmethod
    def of(seconds: Sequence[float]) -> "Timing":
        """Of at least two repeats."""
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
        return Timing(median, (high - low) / median)


class Prepared(Protocol):
    """Calls that are ready to run."""

    def time(self, budget_seconds: float) -> Timing:
        """Of one call."""

    def sustain(self, seconds: float, look: Callable[[], None]) -> None:
        """Keep the device busy for about so long; ``look`` is called every few milliseconds meanwhile."""


class DeviceTimer(Protocol):
    """Runs calls on a device and tells how long they take there."""

    def prepare(self, calls: Sequence[Call]) -> Prepared:
        """Warm up. Each of the calls does the same, on data of its own."""


class CudaGraphTimer:
    """CUDA events around graphs of the calls, so that the time to launch from Python is left out."""

    def prepare(self, calls: Sequence[Call]) -> "_CudaGraph":
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for call in list(calls) * _WARM_UPS:
                call()
        stream.synchronize()
        once = _CudaGraph(calls).replay()
        return _CudaGraph(list(calls) * max(1, min(1000, round(_GRAPH_SECONDS / max(once, 1e-6)))))


class _CudaGraph:
    """So many calls in one graph."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._count = len(calls)
        self._graph: Any = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            for call in calls:
                call()

    def replay(self, times: int = 1) -> float:
        """Seconds on the device."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(times):
            self._graph.replay()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def time(self, budget_seconds: float) -> Timing:
        taken: list[float] = []
        while len(taken) < _LEAST_REPEATS or (sum(taken) < budget_seconds and len(taken) < _MOST_REPEATS):
            taken.append(self.replay())
        return Timing.of([seconds / self._count for seconds in taken])

    def sustain(self, seconds: float, look: Callable[[], None]) -> None:
        chunk = max(1, round(_LOOK_SECONDS / self.replay()))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            # The next replays are queued before the look, so that the device never waits for it.
            waiting = torch.cuda.Event()
            for _ in range(chunk):
                self._graph.replay()
            waiting.record()
            for _ in range(chunk):
                self._graph.replay()
            waiting.synchronize()
            look()
        torch.cuda.synchronize()


class WallClockTimer:
    """The same on a CPU, where a call returns when it is done."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock

    def prepare(self, calls: Sequence[Call]) -> "_WallClock":
        for call in calls:
            call()
        return _WallClock(calls, self._clock)


class _WallClock:
    """Calls in turn."""

    def __init__(self, calls: Sequence[Call], clock: Callable[[], float]) -> None:
        self._calls, self._clock = calls, clock

    def time(self, budget_seconds: float) -> Timing:
        taken: list[float] = []
        while len(taken) < _LEAST_REPEATS or (sum(taken) < budget_seconds and len(taken) < _MOST_REPEATS):
            start = self._clock()
            self._calls[len(taken) % len(self._calls)]()
            taken.append(self._clock() - start)
        return Timing.of(taken)

    def sustain(self, seconds: float, look: Callable[[], None]) -> None:
        end = self._clock() + seconds
        while self._clock() < end:
            self._calls[0]()
            look()
