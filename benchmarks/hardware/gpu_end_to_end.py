"""TTFT and TPOT of serving engines on GPUs against public end-to-end measurements.

``python -m benchmarks.hardware.gpu_end_to_end TABLE`` with aiconfigurator's ``e2e_silicon`` table: closed-loop runs of
dense models under TensorRT-LLM, vLLM and SGLang, simulated step by step as ``lapidist plan`` does it, with the clients
and the batching that ``measured_serving`` tells of. Kernels come from the shipped models. Six constants per engine are
fitted: once to all its runs, and once without each model and without each GPU, which is how they are judged on what
they have not seen. A sample of the runs is fitted, by first differences about the constants that ship; every error
reported is that of a simulation. What ships (``serving_overhead.py``) is such a fit to all runs, rounded.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from benchmarks.hardware.measured_serving import (
    DENSE,
    Run,
    dense,
    error_row,
    kernel_models,
    medians,
    read_runs,
    simulate,
)
from benchmarks.hardware.serving_fit import Numbers, Response, loss, respond, sample
from benchmarks.result_file import write_result
from lapidist.hardware.gpu.serving_overhead import BY_BACKEND, ServingOverhead

GOALS = {"tpot": 0.10, "ttft": 0.20}
BACKENDS = ("trtllm", "vllm", "sglang")
_SAMPLE = 40  # runs per engine that constants are fitted to
# Fields of ServingOverhead: what is plausible, and how far off it may well be.
_PLAUSIBLE = {
    "step_seconds": (0.4e-3, 0.3e-3),
    "sequence_seconds": (14e-6, 10e-6),
    "quantization_seconds": (7e-6, 3e-6),
    "request_seconds": (30e-3, 30e-3),
    "layer_seconds": (1e-6, 2e-6),
    "prefill_seconds": (4e-3, 3e-3),
}
_PRIOR, _SCALE = np.array(list(_PLAUSIBLE.values())).T


def forecast(run: Run, overhead: ServingOverhead) -> tuple[float, float]:
    """Seconds of TTFT and TPOT."""
    served = dense(run.model, run.system, run.backend, run.recipe, run.ranks)
    return simulate(run, served, overhead)


def numbers(overhead: ServingOverhead) -> Numbers:
    return np.array([getattr(overhead, name) for name in _PLAUSIBLE])


def constants_of(fields: Numbers) -> ServingOverhead:
    return ServingOverhead(**dict(zip(_PLAUSIBLE, map(float, fields), strict=True)))


def respond_about_shipped(run: Run) -> Response:
    base = numbers(BY_BACKEND[run.backend])
    return respond(run, base, _SCALE, lambda found: forecast(run, constants_of(found)))


def fit(responses: Sequence[Response]) -> ServingOverhead:
    """Constants that make the mean absolute log error least, drawn to plausible ones where the runs do not tell."""
    error = loss(responses, _PRIOR, _SCALE, ttft_weight=0.3, pull=0.003)
    options = {"maxiter": 4000, "adaptive": True, "fatol": 1e-6, "xatol": 1e-3}
    starts = [np.full(len(_PRIOR), each) for each in (0.0, 0.3, -0.3)]
    results = [minimize(error, start, method="Nelder-Mead", options=options) for start in starts]
    best = min(results, key=lambda result: result.fun)
    return constants_of(np.maximum(0.0, _PRIOR + _SCALE * best.x))


def errors(runs: Sequence[Run], overhead: ServingOverhead) -> pd.DataFrame:
    """One row a run; ratios are forecast over measured."""
    rows = []
    for run in runs:
        ttft, tpot = forecast(run, overhead)
        rows.append({"model": DENSE[run.model], "campaign": run.campaign, **error_row(run, ttft, tpot)})
    return pd.DataFrame(rows)


def held_out(
    runs: Sequence[Run], responses: Sequence[Response], key: str, fallback: ServingOverhead
) -> pd.DataFrame:
    """Errors on each model, or GPU, by constants of the engine's other ones; by the typical ones without any."""
    found = []
    for value in sorted({getattr(run, key) for run in runs}):
        others = [each for each in responses if getattr(each.run, key) != value]
        constants = fit(others) if others else fallback
        found.append(errors([run for run in runs if getattr(run, key) == value], constants))
    return pd.concat(found)


def summary(found: pd.DataFrame) -> dict[str, Any]:
    return {
        "all": medians(found)[0],
        "by_gpu": medians(found, ["gpu"]),
        "by_gpu_and_backend": medians(found, ["gpu", "backend"]),
        "by_model_and_backend": medians(found, ["model", "backend"]),
        "by_campaign_and_backend": medians(found, ["campaign", "backend"]),
        "by_recipe_and_backend": medians(found, ["recipe", "backend"]),
        "by_ranks_and_backend": medians(found, ["ranks", "backend"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    runs = read_runs(parser.parse_args().table, tuple(DENSE))
    typical = constants_of(np.mean([numbers(BY_BACKEND[each]) for each in BACKENDS], axis=0))
    constants: dict[str, ServingOverhead] = {}
    frames: dict[str, list[pd.DataFrame]] = {}
    for backend in BACKENDS:
        some = [run for run in runs if run.backend == backend]
        responses = [respond_about_shipped(run) for run in sample(some, _SAMPLE)]
        constants[backend] = fit(responses)
        print(backend, constants[backend], flush=True)
        for name, found in (
            ("fitted", errors(some, constants[backend])),
            ("model_held_out", held_out(some, responses, "model", typical)),
            ("gpu_held_out", held_out(some, responses, "system", typical)),
        ):
            frames.setdefault(name, []).append(found)
            print(
                f"  {name}: TPOT {found['tpot'].median():.1%}, TTFT {found['ttft'].median():.1%}", flush=True
            )
    result: dict[str, Any] = {
        "goal": GOALS,
        "kernel_models": kernel_models(),
        "constants": {k: {name: getattr(v, name) for name in _PLAUSIBLE} for k, v in constants.items()},
    }
    for name, each in frames.items():
        found = pd.concat(each, ignore_index=True)
        result[name] = summary(found)
        print(f"{name}: median error TPOT {found['tpot'].median():.1%}, TTFT {found['ttft'].median():.1%}")
        for row in result[name]["by_gpu_and_backend"]:
            print(
                f"  {row['gpu']} {row['backend']}: {row['runs']} runs, TPOT {row['tpot']:.1%}, TTFT {row['ttft']:.1%}"
            )
    print(write_result("gpu_end_to_end", result))


if __name__ == "__main__":
    main()
