"""Timings of several functions in turn (A B C A B C ...), so that what disturbs the machine disturbs all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from lapidist.kernels.cpu.library import in_huge_pages, native

_READ_BYTES = 512 << 20


def time_in_turn(
    functions: Mapping[str, Callable[[], Any]],
    rounds: int,
    clocks: Mapping[str, Callable[[], float]] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each function in each round, after a call of each that does not count.

    ``clocks`` are other clocks than the wall's for some functions, such as ``time.thread_time``.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions.items())
    for number in range(rounds):
        # Another one comes first in each round, and each follows another predecessor's caches.
        first = number % len(order)
        for name, function in order[first:] + order[:first]:
            clock = (clocks or {}).get(name, time.perf_counter)
            start = clock()
            function()
            seconds[name].append(clock() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in seconds.items()}


def median_ratio(slower: list[float], faster: list[float]) -> float:
    """Median of the ratios within the rounds: how many times faster the second one is."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


class MemoryReader:
    """Reads memory and does nothing else: the bandwidth that a kernel can be measured against."""

    def __init__(self) -> None:
        self._data = in_huge_pages(torch.empty(_READ_BYTES, dtype=torch.uint8)).fill_(1)

    def __call__(self) -> None:
        native().read_memory(self._data.data_ptr(), _READ_BYTES, torch.get_num_threads())

    def bytes_per_second(self, seconds: float) -> float:
        return _READ_BYTES / seconds
