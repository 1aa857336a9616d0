"""Traces made up from an arrival rate and length distributions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lapidist.workload.length_distribution import LengthDistribution
from lapidist.workload.trace import Trace, TraceRequest


def generate_trace(
    requests: int,
    requests_per_second: float,
    prompt_length: LengthDistribution,
    output_length: LengthDistribution,
    seed: int = 0,
    variation: float = 1.0,
) -> Trace:
    """Random requests that arrive as in :func:`with_arrivals`; the same arguments give the same trace."""
    if requests < 1:
        raise ValueError(f"a trace needs at least 1 request, got {requests}")
    # Separate streams, so that another length distribution leaves the arrivals as they were.
    prompt_rng, output_rng = (np.random.default_rng([seed, stream]) for stream in (1, 2))
    prompts = prompt_length.sample(prompt_rng, requests)
    outputs = output_length.sample(output_rng, requests)
    lengths = tuple(
        TraceRequest(0.0, int(prompt), int(output)) for prompt, output in zip(prompts, outputs, strict=True)
    )
    return with_arrivals(lengths, requests_per_second, seed, variation)


def with_arrivals(
    trace: Sequence[TraceRequest], requests_per_second: float, seed: int = 0, variation: float = 1.0
) -> Trace:
    """The same requests, in the same order, at random times.

    Gaps between arrivals follow a gamma distribution with mean ``1 / requests_per_second`` and coefficient of
    variation ``variation``: 1 is a Poisson process, more comes in bursts, less is more even, 0 a metronome.
    The first request arrives after a gap like any other. An infinite rate puts every request at time 0.

    Raises
    ------
    ValueError : the rate is not above 0 or the variation not from 0 to 100.
    """
    if not requests_per_second > 0:
        raise ValueError(f"the rate must be above 0 requests per second, got {requests_per_second}")
    if not 0 <= variation <= 100:
        raise ValueError(f"the variation of the gaps must be from 0 to 100, got {variation}")
    mean = 1 / requests_per_second
    rng = np.random.default_rng([seed, 0])
    if variation < 1e-6:  # its gamma distribution would be too narrow for floating point
        gaps = np.full(len(trace), mean)
    else:
        shape = variation**-2
        gaps = rng.gamma(shape, mean / shape, len(trace))
    return tuple(
        replace(request, arrival_seconds=float(seconds))
        for request, seconds in zip(trace, np.cumsum(gaps), strict=True)
    )
