"""Which tokens of which sequences run in the next step.

Continuous batching with chunked prefill (Orca, OSDI 2022; Sarathi-Serve, arXiv 2403.02310) over a paged KV cache
(vLLM, arXiv 2309.06180). Pure logic: no tensors and no clock, so that a simulator can drive the same class.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import takewhile

from lapidist.engine.page_pool import PagePool
from lapidist.engine.sequence import Sequence
from lapidist.workload.step import FilterStep, SequenceStep, Step


@dataclass(frozen=True)
class ScheduledSequence:
    """Tokens ``start`` to ``end`` of a sequence, computed in one step.

    ``samples`` tells whether the step reaches the last known token, so that a new one follows from it.
    """

    sequence: Sequence
    start: int
    end: int
    samples: bool

    @property
    def num_tokens(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class ScheduledStep:
    """One forward pass. ``preempted`` lost their pages to it and wait again.

    ``filter_tokens`` is the share of prompt filters in the step: as much work as so many tokens through all layers.
    """

    scheduled: list[ScheduledSequence]
    preempted: list[Sequence] = field(default_factory=list)
    filter_tokens: int = 0

    def workload(
        self,
        extra_logit_rows: int = 0,
        duration_seconds: float | None = None,
        start_seconds: float | None = None,
        filters: Iterable[FilterStep] = (),
        restored: Iterable[int] = (),
    ) -> Step:
        """The step in the language of ``lapidist.workload``.

        Parameters
        ----------
        filters, restored : what prompt filters did, and tokens of what they handed over, see ``Step``.
        """
        return Step(
            sequences=tuple(
                SequenceStep(entry.num_tokens, entry.end) for entry in self.scheduled if entry.num_tokens
            ),
            logit_rows=sum(entry.samples for entry in self.scheduled) + extra_logit_rows,
            duration_seconds=duration_seconds,
            start_seconds=start_seconds,
            filters=tuple(filters),
            restored=tuple(restored),
        )


class Scheduler:
    """First come, first served, in steps of at most ``max_num_batched_tokens`` tokens.

    Running decodes go first, then prefills already begun, then waiting sequences; a long prefill is cut into chunks
    and shares each step with the decodes. A sequence is admitted when pages for all its known tokens are free, so
    only decodes can run out of pages; then the sequence that arrived last is preempted: its pages are freed, and its
    tokens are computed again later.

    A sequence with a prompt filter begins in ``filtering``, where it holds no pages. Filters run in order of arrival
    and get at least half of what the decodes leave of a step, all of it while nothing else wants it. Once filtered,
    the sequence waits for pages before all that arrived later; filters pause while one waits whose keys and values were
    handed over.

    Parameters
    ----------
    pool : the KV pages.
    max_num_seqs : sequences running at once.
    max_num_batched_tokens : tokens computed per step.
    prefix_caching : reuse the pages of equal prefixes.
    """

    def __init__(
        self,
        pool: PagePool,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        prefix_caching: bool = True,
    ) -> None:
        if not 1 <= max_num_seqs <= max_num_batched_tokens:
            raise ValueError(
                f"max_num_batched_tokens ({max_num_batched_tokens}) must be at least max_num_seqs ({max_num_seqs}), "
                "and both at least 1: every running sequence decodes in every step"
            )
        self.pool = pool
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.prefix_caching = prefix_caching
        self.filtering: deque[Sequence] = deque()
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # by admission: the last one is the first to be preempted
        self.num_arrived = 0
        self.num_preemptions = 0
        self.prefix_queried_tokens = 0
        self.prefix_hit_tokens = 0

    def add(self, sequence: Sequence, front: bool = False) -> None:
        """Queue a sequence; ``front`` for one that continues work already admitted.

        Raises
        ------
        ValueError : it could not run even alone.
        """
        if self.pool.pages_for(sequence.max_length) > self.pool.num_pages:
            raise ValueError(
                f"a sequence of {sequence.max_length} tokens does not fit in the KV cache of "
                f"{self.pool.num_pages * self.pool.page_size} tokens"
            )
        if not sequence.arrival:
            self.num_arrived += 1
            sequence.arrival = self.num_arrived
        queue = self.filtering if sequence.needs_filter else self.waiting
        if front:
            queue.appendleft(sequence)
        else:
            queue.append(sequence)

    def filtered(self, sequence: Sequence) -> None:
        """A sequence's filter has ended: it waits for pages, before all that arrived later."""
        self.filtering.remove(sequence)
        earlier = sum(1 for _ in takewhile(lambda other: other.arrival < sequence.arrival, self.waiting))
        self.waiting.insert(earlier, sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a finished or aborted sequence and free its pages."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.filtering:
            self.filtering.remove(sequence)
        self._free(sequence)

    def has_work(self) -> bool:
        return bool(self.running or self.waiting or self.filtering)

    def schedule(self) -> ScheduledStep:
        """Choose the next step. Call ``complete`` once it has run."""
        budget = self.max_num_batched_tokens
        scheduled: list[ScheduledSequence] = []
        preempted: list[Sequence] = []

        for sequence in [s for s in self.running if s.num_uncomputed == 1]:
            if sequence not in preempted:
                # Victims come from the end of ``running``, so none of them is scheduled yet.
                preempted += self._grow(sequence)
            if sequence not in preempted:
                scheduled.append(_chunk(sequence, 1))
                budget -= 1

        reserved = -(-budget // 2) if self.filtering else 0
        budget -= reserved

        for sequence in self.running:
            if budget > 0 and sequence.num_uncomputed > 1:
                scheduled.append(_chunk(sequence, budget))
                budget -= scheduled[-1].num_tokens

        while budget > 0 and not preempted and self.waiting and len(self.running) < self.max_num_seqs:
            sequence = self.waiting[0]
            if not self._admit(sequence):
                break
            self.running.append(self.waiting.popleft())
            scheduled.append(_chunk(sequence, budget))
            budget -= scheduled[-1].num_tokens

        # What filters hand over lies outside the pages until its sequence is admitted: no more before that.
        can_filter = bool(self.filtering) and not any(sequence.num_restored for sequence in self.waiting)
        return ScheduledStep(scheduled, preempted, reserved + budget if can_filter else 0)

    def complete(self, step: ScheduledStep) -> None:
        """Record that the step's keys and values are in the cache; full pages become shareable.

        Call it before the sampled tokens are appended to their sequences.
        """
        page_size = self.pool.page_size
        for entry in step.scheduled:
            sequence = entry.sequence
            first_new = sequence.num_computed // page_size
            sequence.num_computed = entry.end
            if self.prefix_caching and not sequence.num_restored:
                hashes = sequence.full_page_hashes(entry.end, page_size)
                for index in range(first_new, len(hashes)):
                    self.pool.publish(sequence.pages[index], hashes[index])

    def _admit(self, sequence: Sequence) -> bool:
        """Give a waiting sequence pages for all its known tokens; False if too few are free."""
        cached: list[int] = []
        if self.prefix_caching and sequence.reads_prefix_cache and not sequence.num_restored:
            # The last token is always computed: its logits are what the step is for.
            hashes = sequence.full_page_hashes(sequence.num_tokens - 1, self.pool.page_size)
            cached = self.pool.find(hashes)
        new_pages = self.pool.pages_for(sequence.num_tokens) - len(cached)
        if new_pages > self.pool.num_free - self.pool.num_unreferenced(cached):
            return False
        self.pool.acquire(cached)
        sequence.pages = cached + self.pool.allocate(new_pages)
        sequence.num_computed = sequence.num_restored or len(cached) * self.pool.page_size
        if sequence.num_preemptions == 0 and not sequence.num_restored:
            sequence.num_cached_tokens = len(cached) * self.pool.page_size
            self.prefix_queried_tokens += sequence.prompt_length
            self.prefix_hit_tokens += sequence.num_cached_tokens
        return True

    def _grow(self, sequence: Sequence) -> list[Sequence]:
        """Make room for a running sequence's next token; returns whom that preempted, possibly itself."""
        victims: list[Sequence] = []
        missing = self.pool.pages_for(sequence.num_tokens) - len(sequence.pages)
        while missing > self.pool.num_free:
            victim = self.running.pop()
            self._preempt(victim)
            victims.append(victim)
            if victim is sequence:
                return victims
        sequence.pages += self.pool.allocate(missing)
        return victims

    def _preempt(self, sequence: Sequence) -> None:
        self._free(sequence)
        sequence.num_preemptions += 1
        self.num_preemptions += 1
        # What a filter handed over went with the pages.
        sequence.needs_filter = sequence.num_restored > 0
        self.add(sequence, front=True)

    def _free(self, sequence: Sequence) -> None:
        self.pool.release(sequence.pages)
        sequence.pages = []
        sequence.num_computed = 0


def _chunk(sequence: Sequence, budget: int) -> ScheduledSequence:
    """The next tokens of a sequence, at most ``budget``."""
    start = sequence.num_computed
    end = min(start + budget, sequence.num_tokens)
    return ScheduledSequence(sequence, start, end, samples=end == sequence.num_tokens)
