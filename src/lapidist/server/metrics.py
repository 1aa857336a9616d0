"""What Prometheus can ask."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lapidist.engine.async_llm import AsyncLLM
from lapidist.engine.outputs import RequestOutput

_TTFT_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
_TPOT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_END_TO_END_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600)

_GAUGES = (
    ("running", "lapidist_running_sequences", "Sequences being computed."),
    ("waiting", "lapidist_waiting_sequences", "Sequences waiting for a place in the batch (queue depth)."),
    ("filtering", "lapidist_filtering_sequences", "Sequences whose prompts are filtered or wait for it."),
    ("pages_used", "lapidist_kv_pages_used", "KV cache pages held by sequences."),
    ("pages_total", "lapidist_kv_pages_total", "KV cache pages there are."),
)
_COUNTERS = (
    (
        "prefix_queried_tokens",
        "lapidist_prefix_cache_queried_tokens",
        "Prompt tokens looked up in the prefix cache.",
    ),
    ("prefix_hit_tokens", "lapidist_prefix_cache_hit_tokens", "Prompt tokens found in the prefix cache."),
    ("preemptions", "lapidist_preemptions", "Sequences put back because pages ran out."),
    ("prompt_tokens", "lapidist_prompt_tokens", "Prompt tokens accepted."),
    ("generated_tokens", "lapidist_generated_tokens", "Tokens generated."),
    (
        "filtered_prompt_tokens",
        "lapidist_filtered_prompt_tokens",
        "Tokens of prompts that went through a filter.",
    ),
    ("filter_kept_tokens", "lapidist_filter_kept_tokens", "Tokens that filters kept of those prompts."),
    ("steps", "lapidist_engine_steps", "Forward passes."),
    ("attention_rows", "lapidist_attention_rows", "Rows (token, head) of attention in all layers."),
)


class Metrics:
    """The metrics of one server, in a registry of its own so that a process can run several."""

    def __init__(self, engine: AsyncLLM) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(engine))
        self._http_requests = Counter(
            "lapidist_http_requests",
            "HTTP requests by path and status; 499 is a client that left before the answer was complete.",
            ["path", "status"],
            registry=self._registry,
        )
        self._completions = Counter(
            "lapidist_completions",
            "Completions by how they ended.",
            ["finish_reason"],
            registry=self._registry,
        )
        self._ttft = self._histogram("time_to_first_token", "From arrival to the first token.", _TTFT_SECONDS)
        self._tpot = self._histogram(
            "time_per_output_token", "Mean time between a request's tokens.", _TPOT_SECONDS
        )
        self._end_to_end = self._histogram(
            "request_duration", "From arrival to the last token.", _END_TO_END_SECONDS
        )

    def _histogram(self, name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"lapidist_{name}_seconds", description, buckets=buckets, registry=self._registry)

    def observe_http_request(self, path: str, status: int) -> None:
        self._http_requests.labels(path, status).inc()

    def observe_finished(self, output: RequestOutput) -> None:
        """A request has run to its end."""
        for completion in output.outputs:
            self._completions.labels(completion.finish_reason).inc()
        times = output.metrics
        if times.first_token_time is None or times.finished_time is None:
            return
        self._ttft.observe(times.first_token_time - times.arrival_time)
        self._end_to_end.observe(times.finished_time - times.arrival_time)
        later_tokens = max(len(completion.token_ids) for completion in output.outputs) - 1
        if later_tokens > 0:
            self._tpot.observe((times.finished_time - times.first_token_time) / later_tokens)

    def observe_left(self, completions: int) -> None:
        """The client of a request left before its end."""
        self._completions.labels("abort").inc(completions)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _EngineCollector(Collector):
    """Reads the engine's own counters when somebody asks, instead of counting them a second time."""

    def __init__(self, engine: AsyncLLM) -> None:
        self._engine = engine

    def collect(self) -> Iterable[Metric]:
        stats = self._engine.stats()
        for field, name, description in _GAUGES:
            yield GaugeMetricFamily(name, description, value=getattr(stats, field))
        for field, name, description in _COUNTERS:
            yield CounterMetricFamily(name, description, value=getattr(stats, field))
        recomputed = CounterMetricFamily(
            "lapidist_attention_rows_recomputed",
            "Rows of attention that mode unified of the softmax computed a second time.",
            labels=["layer"],
        )
        for layer, count in enumerate(stats.attention_rows_recomputed):
            recomputed.add_metric([str(layer)], count)
        yield recomputed
        parts = GaugeMetricFamily(
            "lapidist_checkpoint_bytes", "Bytes of the checkpoint's tensors by part.", labels=["part"]
        )
        for part, count in self._engine.parts.byte_counts.items():
            parts.add_metric([part], count)
        yield parts
        yield GaugeMetricFamily(
            "lapidist_kv_bytes_per_token",
            "Bytes of the KV cache that one token takes in all layers.",
            value=self._engine.parts.kv_bytes_per_token,
        )
