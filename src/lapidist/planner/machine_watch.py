"""Whether others were at work on a machine while something was measured on it."""

import time

import psutil


class MachineWatch:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._before = _busy_seconds()

    def others_cores(self) -> float:
        """Cores that other processes kept busy on average; the clock of such counts ticks every 10 ms."""
        seconds = time.monotonic() - self._start
        return max(0.0, (_busy_seconds() - self._before) / seconds) if seconds > 0 else 0.0


def _busy_seconds() -> float:
    """Processor time of all processes but this one, with what a virtual machine's host took for itself."""
    machine, own = psutil.cpu_times(), psutil.Process().cpu_times()
    # Guests' time is in the user's already.
    kinds = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(machine, kind, 0.0) for kind in kinds) - own.user - own.system
