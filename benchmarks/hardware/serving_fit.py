"""Fitting constants of serving engines to measured runs, of which each simulation takes a second.

Runs are simulated about the constants that ship and with each of them changed; between, times are taken to be straight.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.hardware.measured_serving import Run

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Response:
    """Simulated TTFT and TPOT ``[2]`` of a run by constants ``base``, and how they change with each ``[fields, 2]``."""

    run: Run
    base: Numbers
    seconds: Numbers
    slopes: Numbers


def respond(
    run: Run, base: Numbers, scale: Numbers, forecast: Callable[[Numbers], tuple[float, float]]
) -> Response:
    """``scale`` is how far off each constant may well be, a third of which is tried."""
    seconds = np.array(forecast(base))
    slopes = [(np.array(forecast(base + step)) - seconds) / step.sum() for step in np.diag(scale / 3)]
    return Response(run, base, seconds, np.array(slopes))


def sample(runs: Sequence[Run], size: int) -> list[Run]:
    """About ``size`` of them, evenly over all that tells runs apart."""
    ordered = sorted(
        runs, key=lambda r: (r.campaign, r.system, r.model, r.recipe, r.ranks, r.prompt_tokens, r.clients)
    )
    return ordered[:: math.ceil(len(ordered) / size)]


def loss(
    responses: Sequence[Response], prior: Numbers, scale: Numbers, ttft_weight: float, pull: float
) -> Callable[[Numbers], float]:
    """Mean absolute log error by constants ``prior + scale x``, drawn to ``prior`` where the runs do not tell."""
    base, seconds, slopes = (
        np.array([getattr(each, name) for each in responses]) for name in ("base", "seconds", "slopes")
    )
    measured = np.array([(each.run.ttft_seconds, each.run.tpot_seconds) for each in responses])

    def of(x: Numbers) -> float:
        constants = prior + scale * x
        found = seconds + np.einsum("rf,rfk->rk", constants - base, slopes)
        error = np.abs(np.log(np.maximum(found, 1e-5) / measured))
        # A few runs had a trouble of their own.
        of_run = np.minimum(error[:, 1], 0.5) + ttft_weight * np.minimum(error[:, 0], 1.0)
        below_zero = np.maximum(0.0, -constants / scale).sum()
        return float(of_run.mean() + pull * np.square(x).sum() + 10 * below_zero)

    return of
