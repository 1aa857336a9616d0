import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lapidist.kernels.passing_thread import in_passing_thread
from tests.kernels.thread_count import thread_count


def test_the_result_comes_back() -> None:
    assert in_passing_thread(lambda: 6 * 7) == 42


def test_what_is_raised_is_raised() -> None:
    with pytest.raises(KeyError, match="lost"):
        in_passing_thread(lambda: {}["lost"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_no_team_is_left_behind() -> None:
    def threads() -> int:
        return len(list(Path(f"/proc/{os.getpid()}/task").iterdir()))

    def parallel() -> int:
        with thread_count(4):
            torch.ones(1 << 22).mul_(2.0)
            return threads()

    in_passing_thread(parallel)  # PyTorch starts threads of its own, once
    before = settled(threads)
    assert in_passing_thread(parallel) >= before + 4
    assert settled(threads) <= before


def settled(count: Callable[[], int]) -> int:
    """What it comes to: threads take a moment to end."""
    least = count()
    for _ in range(20):
        time.sleep(0.05)
        least = min(least, count())
    return least
