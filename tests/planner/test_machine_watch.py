import subprocess
import sys
import time

import psutil

from lapidist.planner.machine_watch import MachineWatch


def test_who_else_is_at_work_is_seen() -> None:
    watch, start = MachineWatch(), time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        used = psutil.Process(child.pid).cpu_times()
        found = watch.others_cores() * (time.monotonic() - start)
    finally:
        child.kill()
        child.wait()
    assert found >= used.user + used.system - 0.1


def test_ones_own_work_does_not_count() -> None:
    """Beside it others may work: what is left of the cores is theirs at most."""
    own, watch, start = time.process_time(), MachineWatch(), time.monotonic()
    while time.monotonic() < start + 0.5:
        pass
    own = time.process_time() - own
    elapsed = time.monotonic() - start
    assert watch.others_cores() * elapsed <= (psutil.cpu_count() or 1) * elapsed - own + 0.1
