"""TTFT and TPOT of a server under ``concurrency`` clients that each send a request when their last one is answered.

Stated in closed form, so that hundreds of configurations take seconds; ``lapidist plan`` runs traces step by step.
Continuous batching with chunked prefill (Sarathi-Serve, arXiv 2403.02310): each answer's steps decode the whole batch,
and in the meantime every other client's prompt passes through once and lengthens the steps it rides in.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lapidist.hardware.estimate import Estimate
from lapidist.workload.step import SequenceStep, Step

StepCost = Callable[[Step], Estimate]


@dataclass(frozen=True)
class ClosedLoop:
    """Means over requests.

    Attributes
    ----------
    running : sequences that decode at a time; below the concurrency where the KV cache is full and requests queue.
    """

    ttft_seconds: float
    tpot_seconds: float
    tokens_per_second: float
    joules_per_token: float
    running: int


@dataclass(frozen=True)
class Traffic:
    """``concurrency`` clients and the lengths of their prompts and answers."""

    concurrency: int
    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if min(self.concurrency, self.prompt_tokens, self.output_tokens) < 1:
            raise ValueError(f"clients and tokens must be at least 1, got {self}")


def closed_loop(
    cost: StepCost,
    traffic: Traffic,
    cache_tokens: float = float("inf"),
    step_tokens: int = 8192,
    request_seconds: float = 0.0,
    synchrony: float = 0.0,
) -> ClosedLoop:
    """What the clients see.

    Parameters
    ----------
    cost : of one step; memoize it where several questions share steps.
    cache_tokens : that the KV cache holds.
    step_tokens : most tokens in one step; longer prompts are cut into chunks.
    request_seconds : spent on a request before its first step, whatever the load.
    synchrony : share of clients whose prompts come in one burst, because answers of one length end together: half of
        those prompts pass before a client's own, and its answer is disturbed by the other half only.

    Raises
    ------
    ValueError : the cache cannot hold a single request.
    """
    prompt, output = traffic.prompt_tokens, traffic.output_tokens
    if cache_tokens < prompt + output:
        raise ValueError(
            f"the KV cache holds {cache_tokens:.0f} tokens, fewer than one request of {prompt + output}"
        )
    # Answers of running requests are on average half written.
    running = max(1, int(min(traffic.concurrency, cache_tokens / (prompt + output / 2))))
    context = prompt + output // 2
    decode = cost(_step(running, context, ()))
    mixed = [cost(_step(running - 1, context, (chunk,))) for chunk in chunk_ends(prompt, step_tokens)]
    # What one prompt adds to the steps it rides in.
    extra = sum(max(0.0, step.seconds - decode.seconds) for step in mixed)
    extra_joules = sum(max(0.0, step.joules - decode.joules) for step in mixed)
    answer = output * decode.seconds + (1 - synchrony / 2) * (running - 1) * extra
    # Prompts that arrive at random queue as in an M/D/1 line; those of a burst wait for half of it.
    load = min(0.95, running * extra / (answer + extra))
    at_random = 1.5 * decode.seconds + extra + extra / 2 * load / (1 - load)
    in_burst = decode.seconds + (running + 1) / 2 * extra
    # Without room in the cache a client waits for the turns of those before it.
    queue = (traffic.concurrency - running) / running * (answer + extra)
    served = (1 - synchrony) * at_random + synchrony * in_burst
    per_second = traffic.concurrency * output / (queue + served + answer + request_seconds)
    return ClosedLoop(
        ttft_seconds=request_seconds + queue + served,
        tpot_seconds=answer / output,
        tokens_per_second=per_second,
        joules_per_token=decode.joules / running + extra_joules / output,
        running=running,
    )


def chunk_ends(prompt: int, step_tokens: int) -> tuple[SequenceStep, ...]:
    """The prompt as chunks of at most ``step_tokens``, each with the context before it."""
    ends = [*range(step_tokens, prompt, step_tokens), prompt]
    starts = [0, *ends[:-1]]
    return tuple(SequenceStep(end - start, end) for start, end in zip(starts, ends, strict=True))


def _step(decodes: int, context: int, chunks: tuple[SequenceStep, ...]) -> Step:
    decoding = tuple(SequenceStep(1, context) for _ in range(decodes))
    return Step((*decoding, *chunks), len(decoding) + len(chunks))
