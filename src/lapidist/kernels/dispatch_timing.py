"""Timings of the implementations of one linear layer, taken in turn, with a weight that comes from memory."""

import time
from collections.abc import Callable, Sequence

import psutil
import torch
from torch import Tensor

from lapidist.kernels.dispatch import Implementation, WeightShape
from lapidist.kernels.machine import last_level_cache_bytes

_MIN_ROUNDS, _MAX_ROUNDS = 3, 101
# After so many rounds, one that is so many times slower than the fastest gets no more of them.
_FAIR_ROUNDS, _HOPELESS = 2, 2.0
_LEAST_COLD_BYTES, _MOST_COLD_BYTES = 128 << 20, 1 << 30


class WeightTimer:
    """Times implementations on weights of one shape.

    In a model every layer's weight has left the cache by the time it is read again. Here there are copies enough
    to fill the last-level cache four times, and each call gets the next one.

    Parameters
    ----------
    max_rows : the most rows that will be asked for.
    clock : gives seconds.
    pack : from ``[n, k]`` to the layout that the implementations read.

    Raises
    ------
    ValueError : the weight does not fit into the free memory, or no implementation takes its dtype.
    """

    def __init__(
        self,
        implementations: Sequence[Implementation],
        shape: WeightShape,
        max_rows: int,
        clock: Callable[[], float] = time.perf_counter,
        pack: Callable[[Tensor], Tensor] = torch.clone,
    ) -> None:
        self._implementations = implementations
        self._clock = clock
        self._dtype = shape.dtype
        if not any(each.competes(shape.dtype, max_rows) for each in implementations):
            raise ValueError(f"no implementation multiplies {max_rows} rows in {shape.dtype}")
        copies = copy_count(shape)
        _check_memory(shape, copies, max_rows)
        # Zeros would not do: all their pages may be one page of physical memory.
        plain = torch.randn(shape.k).to(shape.dtype).repeat(shape.n, 1)
        self._weights = [pack(plain) for _ in range(copies)]
        self._x = torch.randn(max_rows, shape.k).to(shape.dtype)
        self._out = torch.empty(max_rows, shape.n, dtype=shape.dtype)
        self._next = 0

    def measure(self, rows: int, seconds: float) -> dict[str, list[float]]:
        """Times in seconds of each implementation that competes for so many rows, in the order they were given.

        They run in turn (A B C B C A C A B), so that what disturbs the machine disturbs all, and each follows another
        one's caches. The first call of each may set something up and does not count.

        Parameters
        ----------
        seconds : to spend; three rounds are run however long they take.
        """
        contenders = [each for each in self._implementations if each.competes(self._dtype, rows)]
        end = self._clock() + seconds
        for each in contenders:
            self._time(each, rows)
        times: dict[str, list[float]] = {each.name: [] for each in contenders}
        for done in range(_MAX_ROUNDS):
            if done >= _MIN_ROUNDS and self._clock() >= end:
                break
            if done == _FAIR_ROUNDS:
                limit = _HOPELESS * min(map(min, times.values()))
                contenders = [each for each in contenders if min(times[each.name]) <= limit]
            first = done % len(contenders)
            for each in contenders[first:] + contenders[:first]:
                times[each.name].append(self._time(each, rows))
        return times

    def _time(self, implementation: Implementation, rows: int) -> float:
        weight = self._weights[self._next]
        self._next = (self._next + 1) % len(self._weights)
        x, out = self._x[:rows], self._out[:rows]
        start = self._clock()
        implementation.run(x, weight, out)
        return self._clock() - start


def copy_count(shape: WeightShape) -> int:
    """How many copies of a weight are more than four times the last-level cache; 1 for a larger weight."""
    cold_bytes = min(max(4 * last_level_cache_bytes(), _LEAST_COLD_BYTES), _MOST_COLD_BYTES)
    return 1 + cold_bytes // shape.weight_bytes


def _check_memory(shape: WeightShape, copies: int, max_rows: int) -> None:
    needed = copies * shape.weight_bytes + shape.bytes_moved(max_rows)
    free = psutil.virtual_memory().available
    if needed > free:
        raise ValueError(
            f"measuring {shape} takes {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB are free: "
            "close other programs or choose a smaller model"
        )
