"""Serving a trace on a virtual clock: the engine's own scheduler, and a hardware model instead of a forward pass.

The steps are those that the engine takes (Vidur, arXiv 2405.05465, showed that a request-level simulation over
operator times forecasts serving metrics well). A trace of lengths does not tell which prompts begin alike, so nothing
is found in the prefix cache unless ``shared_prefix`` says how much of every prompt is common to all.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lapidist.engine.page_pool import PagePool
from lapidist.engine.scheduler import ScheduledStep, Scheduler
from lapidist.planner.arrival_cost import NO_ARRIVAL_COST, ArrivalCost
from lapidist.planner.batching import MIXED, Batching, BatchingScheduler
from lapidist.planner.decode_run import run_decodes, steps_until_pages_end
from lapidist.planner.step_cost import StepCost
from lapidist.planner.trace_sequence import TraceSequence
from lapidist.workload.request_record import RequestRecord
from lapidist.workload.step import SequenceStep, Step
from lapidist.workload.trace import TraceRequest

Progress = Callable[[int, int], None]  # requests finished, requests in all
_MAX_RUN = 4096


@dataclass(frozen=True)
class ServingSettings:
    """How the engine would be set up; the names are those of ``engine.EngineConfig``.

    Parameters
    ----------
    num_pages, page_size : of the KV cache.
    shared_prefix : share of every prompt, from its beginning, that all requests have in common; from 0 to 1.
    request_seconds : from a request's arrival to the scheduler's seeing it: HTTP, tokenization.
    arrival : what requests take from the steps under way, and the first step after a pause.
    batching : how steps are filled.
    """

    num_pages: int
    page_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    enable_prefix_caching: bool = True
    shared_prefix: float = 0.0
    request_seconds: float = 0.0
    arrival: ArrivalCost = NO_ARRIVAL_COST
    batching: Batching = MIXED

    def __post_init__(self) -> None:
        if not 0 <= self.shared_prefix <= 1:
            raise ValueError(f"shared_prefix must be from 0 to 1, got {self.shared_prefix:g}")

    def scheduler(self) -> Scheduler:
        """A fresh one over a fresh pool."""
        pool = PagePool(self.num_pages, self.page_size)
        limits = (pool, self.max_num_seqs, self.max_num_batched_tokens, self.enable_prefix_caching)
        return Scheduler(*limits) if self.batching == MIXED else BatchingScheduler(*limits, self.batching)


@dataclass
class SimulationResult:
    """What serving the trace came to.

    Attributes
    ----------
    records : one per request, in the order of the trace; refused ones have an error.
    duration_seconds : from the trace's time 0 to the last token.
    busy_seconds, joules : of all steps; joules of one rank.
    steps : forward passes.
    peak_running : most sequences in one step.
    prefix_hit_tokens : prompt tokens that were found in the prefix cache.
    """

    records: list[RequestRecord] = field(default_factory=list)
    duration_seconds: float = 0.0
    busy_seconds: float = 0.0
    joules: float = 0.0
    steps: int = 0
    peak_running: int = 0
    preemptions: int = 0
    prefix_hit_tokens: int = 0


class Simulation:
    """One run of a trace.

    Parameters
    ----------
    cost : what each step takes.
    concurrency : None takes every request at its time (open loop); a number lets so many clients send the next
        request as soon as they have their answer (closed loop).
    fast_forward : take runs of equal decode steps at once; the result is the same.
    on_step : sees every step with its duration, for recordings and comparisons.
    """

    def __init__(
        self,
        trace: Sequence[TraceRequest],
        settings: ServingSettings,
        cost: StepCost,
        *,
        concurrency: int | None = None,
        fast_forward: bool = True,
        on_step: Callable[[Step], None] | None = None,
        progress: Progress = lambda finished, total: None,
    ) -> None:
        if any(later.arrival_seconds < earlier.arrival_seconds for earlier, later in pairwise(trace)):
            raise ValueError("the requests of a trace must be in order of arrival")
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {concurrency}")
        self._settings, self._cost, self._concurrency = settings, cost, concurrency
        self._scheduler = settings.scheduler()
        self._fast_forward = fast_forward
        self._on_step = on_step
        self._progress, self._finished = progress, 0
        self._coming = deque(enumerate(trace))
        self._free_clients = deque([0.0] * (concurrency or 0))  # since when
        self._now = 0.0
        # Nobody who waits can be admitted before a sequence finishes.
        self._is_closed = False
        self._result = SimulationResult(
            [RequestRecord(request.arrival_seconds, request.prompt_tokens) for request in trace]
        )

    def run(self) -> SimulationResult:
        """Serve every request to its end."""
        scheduler = self._scheduler
        while self._coming or scheduler.has_work():
            if not scheduler.has_work():
                self._sleep()
            self._admit_arrivals()
            if scheduler.has_work() and not self._decode_run():
                self._one_step()
        result = self._result
        result.duration_seconds = self._now
        result.preemptions = scheduler.num_preemptions
        result.prefix_hit_tokens = scheduler.prefix_hit_tokens
        return result

    def _sleep(self) -> None:
        """Until the next request has come, and what is slow at first has been waited for."""
        arrival = self._next_arrival()
        if arrival > self._now:
            self._now = arrival + self._settings.arrival.wake_seconds

    def _next_arrival(self) -> float:
        """When the scheduler sees the next request; in a closed loop one comes when a client is free."""
        return self._next_due() + self._settings.request_seconds

    def _next_due(self) -> float:
        if self._concurrency is None:
            return self._coming[0][1].arrival_seconds
        return self._free_clients[0] if self._free_clients else math.inf

    def _admit_arrivals(self) -> None:
        while self._coming and self._next_arrival() <= self._now:
            if self._concurrency is not None:
                self._result.records[self._coming[0][0]].due_seconds = self._free_clients.popleft()
            number, request = self._coming.popleft()
            shared = int(self._settings.shared_prefix * request.prompt_tokens)
            sequence = TraceSequence(number, request.prompt_tokens, request.output_tokens, shared)
            if self._scheduler.has_work():
                self._now += self._settings.arrival.taken_seconds(request.prompt_tokens)
            try:
                self._scheduler.add(sequence)
            except ValueError as error:
                self._result.records[number].error = str(error)
                self._count_finished()

    def _one_step(self) -> None:
        scheduler = self._scheduler
        step = scheduler.schedule()
        decodes, chunks, sampling = _shape(step)
        seconds, joules = self._cost.step(decodes, chunks, len(sampling))
        self._now += seconds
        scheduler.complete(step)
        self._book(1, len(step.scheduled), seconds, joules)
        if self._on_step is not None:
            self._on_step(step.workload(duration_seconds=seconds))
        is_decode = len(decodes) == len(sampling) == len(step.scheduled)
        is_full = not isinstance(scheduler, BatchingScheduler) or not scheduler.holds_back
        self._is_closed = is_full and is_decode and not step.preempted and bool(scheduler.waiting)
        for sequence in sampling:
            sequence.append()
            self._hand_out(sequence, [self._now])

    def _decode_run(self) -> bool:
        """Take as many decode steps as can only be that; False if there are none."""
        scheduler = self._scheduler
        running: list[TraceSequence] = scheduler.running  # type: ignore[assignment]  # only we add sequences
        held = scheduler.steps_held_back(len(running)) if isinstance(scheduler, BatchingScheduler) else 0
        may_admit = bool(scheduler.waiting) and not self._is_closed and not held
        if not self._fast_forward or not running or may_admit:
            return False
        if any(sequence.num_uncomputed != 1 for sequence in running):
            return False
        steps = min(sequence.max_length - sequence.num_tokens for sequence in running)
        steps = min(steps, held) if held else steps
        steps = steps_until_pages_end(scheduler.pool, running, min(steps, _MAX_RUN))
        if steps < 1:
            return False
        seconds, joules = self._cost.decode_run([sequence.num_tokens for sequence in running], steps)
        ends = np.cumsum([self._now, *seconds])[1:]
        arrivals_matter = held or not scheduler.waiting or self._settings.arrival != NO_ARRIVAL_COST
        if self._coming and arrivals_matter:
            # The step under way ends before who arrives meanwhile is looked at.
            steps = min(steps, int(np.searchsorted(ends, self._next_arrival(), side="left")) + 1)
        if held and isinstance(scheduler, BatchingScheduler):
            scheduler.hold_back(steps)
        self._take(list(running), steps, ends[:steps].tolist(), seconds[:steps].tolist())
        self._book(steps, len(running), float(seconds[:steps].sum()), float(joules[:steps].sum()))
        return True

    def _take(
        self, running: list[TraceSequence], steps: int, ends: list[float], seconds: list[float]
    ) -> None:
        if self._on_step is not None:
            lengths = [sequence.num_tokens for sequence in running]
            for index, duration in enumerate(seconds):
                sequences = tuple(SequenceStep(1, length + index) for length in lengths)
                self._on_step(Step(sequences, len(lengths), duration))
        run_decodes(self._scheduler, running, steps)
        self._now = ends[-1]
        for sequence in running:
            self._hand_out(sequence, ends)

    def _book(self, steps: int, running: int, seconds: float, joules: float) -> None:
        result = self._result
        result.steps += steps
        result.busy_seconds += seconds
        result.joules += joules
        result.peak_running = max(result.peak_running, running)

    def _hand_out(self, sequence: TraceSequence, times: list[float]) -> None:
        """Tokens have come at ``times``; the sequence has them already."""
        record = self._result.records[sequence.request]
        record.chunk_seconds += times
        if sequence.num_tokens == sequence.max_length:
            record.output_tokens = sequence.generated
            record.finished_seconds = times[-1]
            self._scheduler.remove(sequence)
            self._is_closed = False
            self._count_finished()

    def _count_finished(self) -> None:
        self._finished += 1
        if self._concurrency is not None:
            self._free_clients.append(self._now)
        self._progress(self._finished, len(self._result.records))


def _shape(step: ScheduledStep) -> tuple[list[int], list[SequenceStep], list[TraceSequence]]:
    """Contexts of its single tokens, its chunks of several, and the sequences that get a token of it."""
    decodes: list[int] = []
    chunks: list[SequenceStep] = []
    sampling: list[TraceSequence] = []
    for entry in step.scheduled:
        tokens = entry.end - entry.start
        if tokens == 1:
            decodes.append(entry.end)
        else:
            chunks.append(SequenceStep(tokens, entry.end))
        if entry.samples:
            sampling.append(entry.sequence)  # type: ignore[arg-type]  # only we add sequences
    return decodes, chunks, sampling
