"""From what a user types to a trace: a file by its suffix, or ``poisson:RATE``."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lapidist.workload.azure_trace import read_azure_trace
from lapidist.workload.generated_trace import generate_trace, with_arrivals
from lapidist.workload.length_distribution import parse_length
from lapidist.workload.sharegpt_trace import read_sharegpt_trace
from lapidist.workload.trace import Trace, read_trace, scale_rate, time_window, within_context

_GENERATED = "poisson:"


@dataclass(frozen=True)
class TraceSpec:
    """Where a trace comes from and how much of it is replayed.

    Parameters
    ----------
    source : ``*.csv[.gz]`` in the Azure format, ``*.json`` with ShareGPT conversations, ``*.jsonl[.gz]`` of
        our own, or ``poisson:RATE`` for made-up requests at RATE per second.
    requests : so many at most, from the beginning; made-up traces have as many, or 100.
    duration_seconds : only what arrives so early.
    rate : stretch the times to so many requests per second on average; without it conversations, which have
        no times, all arrive at once.
    prompt_length, output_length : of made-up requests, see ``parse_length``.
    variation : of the gaps between made-up arrivals; 1 is Poisson.
    seed : of everything random.
    """

    source: str
    requests: int | None = None
    duration_seconds: float | None = None
    rate: float | None = None
    prompt_length: str = "lognormal:200:0.7"
    output_length: str = "lognormal:80:0.6"
    variation: float = 1.0
    seed: int = 0

    def load(
        self, count_tokens: Callable[[str], int] | None, context_tokens: int | None
    ) -> tuple[Trace, int]:
        """The requests to replay, and how many were left out because they are too long.

        Parameters
        ----------
        count_tokens : of a text; needed for conversations only.
        context_tokens : leave out requests that are longer, prompt and answer together.

        Raises
        ------
        ValueError : the source cannot be understood or read, or is empty.
        """
        trace = self._generate() if self.source.startswith(_GENERATED) else self._read(count_tokens)
        if self.duration_seconds is not None:
            trace = time_window(trace, 0.0, self.duration_seconds)
        if not trace:
            raise ValueError(f"{self.source}: no request to replay")
        fitting = within_context(trace, context_tokens) if context_tokens is not None else trace
        if not fitting:
            raise ValueError(
                f"{self.source}: every request is longer than the context of {context_tokens} tokens"
            )
        return fitting, len(trace) - len(fitting)

    def _generate(self) -> Trace:
        text = self.source.removeprefix(_GENERATED)
        try:
            rate = float(text)
        except ValueError:
            raise ValueError(f"{self.source}: expected poisson:RATE in requests per second") from None
        prompts, outputs = parse_length(self.prompt_length), parse_length(self.output_length)
        return generate_trace(
            self.requests or 100, self.rate or rate, prompts, outputs, self.seed, self.variation
        )

    def _read(self, count_tokens: Callable[[str], int] | None) -> Trace:
        path = Path(self.source)
        kind = path.name.removesuffix(".gz").rpartition(".")[2]
        if kind == "csv":
            trace = read_azure_trace(path)[: self.requests]
        elif kind == "jsonl":
            trace = read_trace(path)[: self.requests]
        elif kind == "json":
            if count_tokens is None:
                raise ValueError(
                    f"{self.source}: conversations need a tokenizer to count their tokens; name one"
                )
            trace = read_sharegpt_trace(path, count_tokens)[: self.requests]
            return with_arrivals(trace, self.rate or float("inf"), self.seed, self.variation)
        else:
            raise ValueError(
                f"{self.source}: a trace is a .csv (Azure), .json (ShareGPT) or .jsonl file, or poisson:RATE"
            )
        return self._at_rate(trace)

    def _at_rate(self, trace: Trace) -> Trace:
        span_seconds = trace[-1].arrival_seconds if trace else 0.0
        if self.rate is None or span_seconds == 0:
            return trace
        return scale_rate(trace, self.rate * span_seconds / len(trace))
