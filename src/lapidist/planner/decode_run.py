"""Many decode steps at once, when nothing but decoding can happen.

While every running sequence decodes and none can be admitted, the scheduler gives the same step over and over. A run
leaves scheduler and pool exactly as that many ``schedule`` and ``complete`` would: pages are handed out and published
in the same order.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lapidist.engine.page_pool import PagePool
from lapidist.engine.scheduler import Scheduler
from lapidist.planner.trace_sequence import TraceSequence


def steps_until_pages_end(pool: PagePool, sequences: Sequence[TraceSequence], steps: int) -> int:
    """How many of ``steps`` decode steps of ``sequences`` the free pages allow."""
    first = _first_new_page(pool, sequences)
    needed = np.maximum(0, (steps - 1 - first) // pool.page_size + 1)
    if needed.sum() <= pool.num_free:
        return steps
    # New pages of a sequence are page_size steps apart.
    asked = np.concatenate([np.arange(start, steps, pool.page_size) for start in first])
    taken = np.cumsum(np.bincount(asked, minlength=steps))
    return int(np.searchsorted(taken, pool.num_free, side="right"))


def run_decodes(scheduler: Scheduler, sequences: Sequence[TraceSequence], steps: int) -> None:
    """Let every sequence decode ``steps`` tokens; all but the last one's keys and values are in the cache then.

    The caller has made sure that pages and lengths allow it.
    """
    pool = scheduler.pool
    first = _first_new_page(pool, sequences)
    # (step, whether it is the end of the step, place in the batch): the order in which the scheduler does it.
    events = [
        (step, False, place)
        for place, start in enumerate(first.tolist())
        for step in range(start, steps, pool.page_size)
    ]
    if scheduler.prefix_caching:
        # A page is full page_size - 1 steps after it was begun.
        events += [
            (step, True, place)
            for place, start in enumerate(first.tolist())
            for step in range((start - 1) % pool.page_size, steps, pool.page_size)
        ]
    events.sort()
    computed = [sequence.num_computed for sequence in sequences]
    for sequence in sequences:
        sequence.append(steps)
        sequence.num_computed += steps
    for step, is_end, place in events:
        sequence = sequences[place]
        if is_end:
            page = (computed[place] + step) // pool.page_size
            pool.publish(
                sequence.pages[page],
                sequence.full_page_hashes((page + 1) * pool.page_size, pool.page_size)[page],
            )
        else:
            sequence.pages += pool.allocate(1)


def _first_new_page(pool: PagePool, sequences: Sequence[TraceSequence]) -> NDArray[Any]:
    """In which of the coming steps each sequence begins a page; those it holds may reach beyond what is computed."""
    return np.array([len(sequence.pages) * pool.page_size - sequence.num_computed for sequence in sequences])
