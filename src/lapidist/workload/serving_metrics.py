"""The numbers a serving team looks at: latency percentiles, throughput, goodput."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lapidist.workload.request_record import RequestRecord


@dataclass(frozen=True)
class Latency:
    """Mean, percentiles and maximum of one kind of latency, in seconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @staticmethod
    def of(seconds: Sequence[float]) -> "Latency | None":
        """None of nothing."""
        if not seconds:
            return None
        p50, p90, p95, p99 = (float(value) for value in np.percentile(seconds, (50, 90, 95, 99)))
        return Latency(float(np.mean(seconds)), p50, p90, p95, p99, max(seconds))


@dataclass(frozen=True)
class Objective:
    """A service-level objective: the longest acceptable TTFT and TPOT in seconds, None for any."""

    ttft_seconds: float | None = None
    tpot_seconds: float | None = None

    @staticmethod
    def of_milliseconds(ttft_ms: float | None, tpot_ms: float | None) -> "Objective | None":
        """None without any limit."""
        if ttft_ms is None and tpot_ms is None:
            return None
        return Objective(*(None if limit is None else limit / 1000 for limit in (ttft_ms, tpot_ms)))

    def met_by(self, record: RequestRecord) -> bool:
        """Whether a request finished in time; an answer of one token has no TPOT to miss."""
        if not record.completed:
            return False
        in_time = self.ttft_seconds is None or record.first_token_seconds <= self.ttft_seconds
        pace = record.seconds_per_output_token
        return in_time and (self.tpot_seconds is None or pace is None or pace <= self.tpot_seconds)


@dataclass(frozen=True)
class Metrics:
    """Summary of a replay.

    Attributes
    ----------
    completed, failed, unfinished : requests; unfinished ones were under way when the replay was stopped.
    errors : message -> how often.
    ttft, tpot, inter_token, end_to_end : latencies of completed requests in seconds, see ``RequestRecord``.
    prompt_tokens, output_tokens : of completed requests.
    *_per_second : over ``duration_seconds``.
    goodput_requests_per_second, objective_met : requests that met the objective, per second and as a fraction
        of all that were not still under way; None without an objective.
    """

    duration_seconds: float
    completed: int
    failed: int
    unfinished: int
    errors: dict[str, int]
    prompt_tokens: int
    output_tokens: int
    requests_per_second: float
    prompt_tokens_per_second: float
    output_tokens_per_second: float
    ttft: Latency | None
    tpot: Latency | None
    inter_token: Latency | None
    end_to_end: Latency | None
    goodput_requests_per_second: float | None
    objective_met: float | None


def summarize(
    records: Iterable[RequestRecord], duration_seconds: float, objective: Objective | None = None
) -> Metrics:
    """Summarize a replay that took ``duration_seconds``."""
    records = list(records)
    completed = [record for record in records if record.completed]
    failed = [record for record in records if record.error is not None]
    prompt_tokens = sum(record.prompt_tokens for record in completed)
    output_tokens = sum(record.output_tokens for record in completed)
    rate = 1 / duration_seconds if duration_seconds > 0 else 0.0
    good = sum(objective.met_by(record) for record in completed) if objective else None
    ended = len(completed) + len(failed)
    paces = [record.seconds_per_output_token for record in completed]
    return Metrics(
        duration_seconds=duration_seconds,
        completed=len(completed),
        failed=len(failed),
        unfinished=len(records) - ended,
        errors=dict(Counter(record.error for record in failed if record.error is not None).most_common()),
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        requests_per_second=len(completed) * rate,
        prompt_tokens_per_second=prompt_tokens * rate,
        output_tokens_per_second=output_tokens * rate,
        ttft=Latency.of([record.first_token_seconds for record in completed]),
        tpot=Latency.of([pace for pace in paces if pace is not None]),
        inter_token=Latency.of([pause for record in completed for pause in record.inter_token_seconds]),
        end_to_end=Latency.of([record.end_to_end_seconds for record in completed]),
        goodput_requests_per_second=None if good is None else good * rate,
        objective_met=None if good is None or not ended else good / ended,
    )
