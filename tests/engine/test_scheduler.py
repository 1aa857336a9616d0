"""The scheduler alone, driven by a fake model that appends random tokens."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.engine.page_pool import PagePool
from lapidist.engine.scheduler import ScheduledStep, Scheduler
from lapidist.engine.sequence import Sequence


def make(num_pages: int = 8, page_size: int = 4, max_num_seqs: int = 4, tokens: int = 8) -> Scheduler:
    return Scheduler(PagePool(num_pages, page_size), max_num_seqs, tokens)


def sequence(prompt: int, generate: int, first_token: int = 0) -> Sequence:
    return Sequence([first_token + i for i in range(prompt)], prompt, prompt + generate)


def run(scheduler: Scheduler, step: ScheduledStep, token: int = 7) -> list[Sequence]:
    """Pretend to run the step; returns the sequences that finished."""
    scheduler.complete(step)
    finished = []
    for entry in step.scheduled:
        if entry.samples:
            entry.sequence.token_ids.append(token)
            if entry.sequence.num_tokens == entry.sequence.max_length:
                scheduler.remove(entry.sequence)
                finished.append(entry.sequence)
    return finished


def chunks(step: ScheduledStep) -> list[tuple[int, int]]:
    return [(entry.start, entry.num_tokens) for entry in step.scheduled]


def test_long_prompt_is_cut_into_chunks_and_decodes_go_first() -> None:
    scheduler = make()
    scheduler.add(sequence(3, 5))
    run(scheduler, scheduler.schedule())
    scheduler.add(sequence(12, 1, first_token=100))
    step = scheduler.schedule()
    assert chunks(step) == [(3, 1), (0, 7)]
    assert [entry.samples for entry in step.scheduled] == [True, False]
    run(scheduler, step)
    step = scheduler.schedule()
    assert chunks(step) == [(4, 1), (7, 5)]
    assert [entry.samples for entry in step.scheduled] == [True, True]


def test_equal_prefix_is_computed_once() -> None:
    scheduler = make(tokens=64)
    first = sequence(10, 1)
    scheduler.add(first)
    run(scheduler, scheduler.schedule())
    second = sequence(10, 4)
    scheduler.add(second)
    step = scheduler.schedule()
    assert chunks(step) == [(8, 2)]
    assert second.num_cached_tokens == 8
    assert (scheduler.prefix_hit_tokens, scheduler.prefix_queried_tokens) == (8, 20)


def test_whole_cached_prompt_still_computes_its_last_token() -> None:
    scheduler = make(tokens=64)
    scheduler.add(sequence(8, 1))
    run(scheduler, scheduler.schedule())
    scheduler.add(sequence(8, 1))
    assert chunks(scheduler.schedule()) == [(4, 4)]


@pytest.mark.parametrize("change", ["salt", "opt_out", "disabled"])
def test_prefix_cache_is_not_read(change: str) -> None:
    scheduler = Scheduler(PagePool(8, 4), 4, 64, prefix_caching=change != "disabled")
    scheduler.add(sequence(8, 1))
    run(scheduler, scheduler.schedule())
    other = sequence(8, 1)
    if change == "salt":
        other.cache_salt = b"other"
    if change == "opt_out":
        other.reads_prefix_cache = False
    scheduler.add(other)
    assert chunks(scheduler.schedule()) == [(0, 8)]


def test_last_arrival_is_preempted_and_recomputed() -> None:
    scheduler = Scheduler(PagePool(4, 4), 4, 16, prefix_caching=False)
    old, young = sequence(8, 8), sequence(7, 8)
    scheduler.add(old)
    scheduler.add(young)
    run(scheduler, scheduler.schedule())  # both prompts; all four pages are taken
    step = scheduler.schedule()  # old needs a third page
    assert step.preempted == [young]
    assert [entry.sequence for entry in step.scheduled] == [old]
    assert (young.pages, young.num_computed, young.num_tokens) == ([], 0, 8)
    while old in scheduler.running:
        run(scheduler, step)
        step = scheduler.schedule()
    assert chunks(step) == [(0, 8)]
    assert step.scheduled[0].sequence is young


def test_sequence_that_never_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit in the KV cache of 32 tokens"):
        make().add(sequence(30, 3))
    with pytest.raises(ValueError, match="max_num_batched_tokens"):
        make(max_num_seqs=9, tokens=8)


def test_workload_names_every_query_and_context() -> None:
    scheduler = make()
    scheduler.add(sequence(3, 2))
    scheduler.add(sequence(12, 2, first_token=50))
    step = scheduler.schedule().workload(extra_logit_rows=2, duration_seconds=0.5)
    assert [(s.query_length, s.kv_length) for s in step.sequences] == [(3, 3), (5, 5)]
    assert (step.logit_rows, step.duration_seconds) == (3, 0.5)


@settings(max_examples=150, deadline=None)
@given(
    num_pages=st.integers(4, 24),
    page_size=st.sampled_from([1, 3, 4, 16]),
    max_num_seqs=st.integers(1, 6),
    extra_tokens=st.integers(0, 12),
    prefix_caching=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_sequence_finishes_and_no_page_leaks(
    num_pages: int, page_size: int, max_num_seqs: int, extra_tokens: int, prefix_caching: bool, seed: int
) -> None:
    """Random arrivals, aborts and shared prefixes: the books balance after every step, and everything finishes."""
    rng = random.Random(seed)
    pool = PagePool(num_pages, page_size)
    scheduler = Scheduler(pool, max_num_seqs, max_num_seqs + extra_tokens, prefix_caching)
    capacity = num_pages * page_size
    arrivals = []
    for _ in range(rng.randint(1, 12)):
        length = rng.randint(2, min(capacity, 40))
        prompt = rng.randint(1, length - 1)
        shared = rng.choice([0, 100])  # half of the prompts share their beginning
        arrivals.append(Sequence([shared + i for i in range(prompt)], prompt, length))
    alive = set(arrivals)
    for _ in range(5000):
        while arrivals and rng.random() < 0.5:
            scheduler.add(arrivals.pop())
        if rng.random() < 0.02 and scheduler.has_work():
            victim = rng.choice([*scheduler.running, *scheduler.waiting])
            scheduler.remove(victim)
            alive.discard(victim)
        if not scheduler.has_work():
            if not arrivals:
                break
            continue
        step = scheduler.schedule()
        assert step.scheduled, "work is left but the step is empty"
        assert sum(entry.num_tokens for entry in step.scheduled) <= scheduler.max_num_batched_tokens
        assert len(scheduler.running) <= max_num_seqs
        for entry in step.scheduled:
            assert entry.start == entry.sequence.num_computed
            assert len(entry.sequence.pages) * page_size >= entry.end
        writable = [
            entry.sequence.pages[index]
            for entry in step.scheduled
            for index in range(entry.start // page_size, -(-entry.end // page_size))
        ]
        assert len(set(writable)) == len(writable), "two sequences write the same page"
        alive.difference_update(run(scheduler, step, token=rng.randint(0, 3)))
        held = {page for sequence in scheduler.running for page in sequence.pages}
        assert pool.num_held == len(held)
    assert not alive
    assert pool.num_free == num_pages
