"""One measurement from start to end: load the trace, warm up, replay, summarize."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from lapidist.evaluation.serving.prompts import PromptMaker
from lapidist.evaluation.serving.replay import Replay
from lapidist.evaluation.serving.target import Target
from lapidist.models.tokenizer import Tokenizer
from lapidist.workload.request_record import RequestRecord
from lapidist.workload.serving_metrics import Metrics, Objective, summarize
from lapidist.workload.trace_spec import TraceSpec

Progress = Callable[[int, int], None]  # requests finished, requests in all


@dataclass(frozen=True)
class BenchmarkResult:
    """What a replay measured.

    Attributes
    ----------
    left_out : requests of the trace that do not fit into the model's context.
    stopped : it was cancelled before its end; the rest holds what had come by then.
    """

    metrics: Metrics
    records: list[RequestRecord]
    left_out: int
    stopped: bool


@dataclass(frozen=True)
class Benchmark:
    """A replay of ``trace``; ``concurrency`` as in :class:`Replay`."""

    trace: TraceSpec
    concurrency: int | None = None
    objective: Objective | None = None

    async def run(
        self,
        target: Target,
        tokenizer: Tokenizer | None = None,
        context_tokens: int | None = None,
        progress: Progress = lambda finished, total: None,
    ) -> BenchmarkResult:
        """Measure ``target``.

        Cancelling it during the replay, as Ctrl-C does under ``asyncio.run``, ends it early with what has
        been measured.

        Parameters
        ----------
        tokenizer : the target's; without it prompts are text of roughly the wanted length.
        context_tokens : leave out longer requests.

        Raises
        ------
        ValueError : the trace cannot be read or the target cannot be used.
        """
        count_tokens = (lambda text: len(tokenizer.encode(text))) if tokenizer is not None else None
        trace, left_out = self.trace.load(count_tokens, context_tokens)
        finished = 0

        def on_finished() -> None:
            nonlocal finished
            finished += 1
            progress(finished, len(trace))

        progress(0, len(trace))
        await target.prepare()
        replay = Replay(target, trace, PromptMaker(tokenizer, self.trace.seed), self.concurrency, on_finished)
        stopped = False
        try:
            await replay.run()
        except asyncio.CancelledError:
            stopped = True
        metrics = summarize(replay.records, replay.duration_seconds, self.objective)
        return BenchmarkResult(metrics, replay.records, left_out, stopped)
