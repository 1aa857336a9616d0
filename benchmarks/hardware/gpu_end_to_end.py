"""TTFT and TPOT of serving engines on GPUs against public end-to-end measurements.

``python -m benchmarks.hardware.gpu_end_to_end TABLE`` with aiconfigurator's ``e2e_silicon`` table: closed-loop runs of
dense models under TensorRT-LLM, vLLM and SGLang. Kernels come from the shipped models; five constants per backend are
fitted, once to all rows (those are what ships) and once per model without its rows, which is how they are judged.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize

from benchmarks.result_file import write_result
from lapidist.hardware.estimate import Estimate
from lapidist.hardware.gpu.closed_loop import Traffic, closed_loop
from lapidist.hardware.gpu.gpu import GPU
from lapidist.hardware.gpu.serving_overhead import NONE, ServingOverhead
from lapidist.models.config import ModelConfig
from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.operators import GEMM
from lapidist.workload.tensor_format import TensorFormat

# Hub name in the table: our shape's name.
MODELS = {
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "Qwen/Qwen3-32B": "qwen3-32b",
}
SYSTEMS = ("h100_sxm", "h200_sxm", "b200_sxm")
# Runs of deployments with several workers, whose concurrency per worker the table does not tell.
SEVERAL_WORKERS = ("gtl_task_id", "nvidia_Llama-3.1-8B-Instruct-FP8")
_BF16, _FP8, _FP4 = TensorFormat("bf16"), TensorFormat("fp8"), TensorFormat("fp4", 16, 8)
_USABLE_MEMORY, _RESERVED_BYTES = 0.9, 2e9
_PRIOR = ServingOverhead(0.5e-3, 12e-6, 4e-6, 40e-3, 0.3)
_FITTED = 5  # the first fields of ServingOverhead


@dataclass(frozen=True)
class Run:
    """One measured configuration with what its steps cost without any overhead."""

    model: str
    gpu: str
    backend: str
    traffic: Traffic
    cache_tokens: float
    layers: int
    steps: dict[tuple[int, int], tuple[Estimate, int]]
    ttft_seconds: float
    tpot_seconds: float

    def forecast(self, overhead: ServingOverhead) -> tuple[float, float]:
        """Seconds of TTFT and TPOT."""

        def cost(step: Step) -> Estimate:
            bare, quantizing = self.steps[_key(step)]
            decoding = sum(sequence.query_length == 1 for sequence in step.sequences)
            prefill = decoding < len(step.sequences)
            beside = overhead.seconds(self.layers, len(step.sequences), prefill)
            beside -= quantizing * overhead.quantization_seconds
            return replace(bare, seconds=max(bare.seconds + beside, 0.4 * bare.seconds))

        found = closed_loop(
            cost,
            self.traffic,
            self.cache_tokens,
            request_seconds=overhead.request_seconds,
            synchrony=overhead.synchrony,
        )
        return found.ttft_seconds, found.tpot_seconds


def read_runs(path: Path) -> list[Run]:
    table = pd.read_parquet(path)
    table = table[(table["mode"] == "agg") & table["model_path"].isin(MODELS) & table["system"].isin(SYSTEMS)]
    several = table["silicon_data_source"].str.contains("|".join(SEVERAL_WORKERS))
    print(f"{len(table)} runs, {int(several.sum())} of them of several workers and left out")
    return [_run(row) for _, row in table[~several].iterrows()]


def _run(row: Any) -> Run:
    gpu, config = _gpu(row.system, row.backend), _config(row.model_path)
    recipe, ranks = _recipe(row.precision, row.backend), int(row.tp_size)
    traffic = Traffic(int(row.batch_size), int(row.isl), int(row.osl))
    weights = sum(
        o.count * o.weight_bytes for o in lower(config, recipe, Step((SequenceStep(1, 1),), 1), ranks)
    )
    kv_heads = max(1, config.num_kv_heads // ranks)
    token_bytes = 2 * config.num_layers * recipe.kv.byte_count(kv_heads, config.head_dim)
    free = _USABLE_MEMORY * gpu.sheet.memory_bytes - weights - _RESERVED_BYTES
    cache_tokens = max(free / token_bytes, traffic.prompt_tokens + traffic.output_tokens)
    steps: dict[tuple[int, int], tuple[Estimate, int]] = {}

    def record(step: Step) -> Estimate:
        operators = lower(config, recipe, step, ranks)
        estimate = gpu.step(operators)
        gemms = [operator for operator in operators if isinstance(operator, GEMM)]
        quantizing = sum(gemm.count for gemm in gemms if gpu.quantizes_input(gemm))
        steps[_key(step)] = (estimate, quantizing)
        return estimate

    closed_loop(record, traffic, cache_tokens)
    return Run(
        row.model_path,
        gpu.name,
        row.backend,
        traffic,
        cache_tokens,
        config.num_layers,
        steps,
        row.silicon_ttft_ms / 1e3,
        row.silicon_tpot_ms / 1e3,
    )


def _key(step: Step) -> tuple[int, int]:
    """Tells apart the steps that one closed loop asks for."""
    return step.tokens, step.sequences[-1].kv_length


@cache
def _gpu(system: str, backend: str) -> GPU:
    return GPU(system, backend, overhead=NONE)


@cache
def _config(model: str) -> ModelConfig:
    return ModelConfig.of_shape(MODELS[model])


def _recipe(precision: str | float, backend: str) -> Recipe:
    if precision == "fp4":
        return Recipe("fp4", _FP4, _FP4, _FP8, _BF16)
    if precision == "fp8":
        return Recipe("fp8", _FP8, _FP8, _FP8 if backend == "trtllm" else _BF16, _BF16)
    return Recipe.named("bf16")


def fit(runs: Sequence[Run]) -> ServingOverhead:
    """Constants that make the mean absolute log error least, drawn to plausible ones where the runs do not tell."""
    some = runs[:: max(1, len(runs) // 60)]
    prior = np.log(np.array(astuple(_PRIOR)[:_FITTED]))

    def loss(x: NDArray[np.float64]) -> float:
        return _log_error(some, _overhead(x)) + 0.01 * float(np.square(x - prior).sum())

    options = {"maxfev": 450}
    starts = (prior, prior + np.array([0, 0, 0, 0, 1.2]))
    results = [minimize(loss, start, method="Nelder-Mead", options=options) for start in starts]
    return _overhead(min(results, key=lambda result: result.fun).x)


def _overhead(x: NDArray[np.float64]) -> ServingOverhead:
    return ServingOverhead(*map(float, np.exp(np.minimum(x, 0.0))))


def _log_error(runs: Sequence[Run], overhead: ServingOverhead) -> float:
    total = 0.0
    for run in runs:
        ttft, tpot = run.forecast(overhead)
        total += abs(math.log(max(tpot, 1e-6) / run.tpot_seconds))
        total += 0.3 * min(1.0, abs(math.log(ttft / run.ttft_seconds)))
    return total / len(runs)


def errors(runs: Sequence[Run], overhead: ServingOverhead) -> pd.DataFrame:
    rows = []
    for run in runs:
        ttft, tpot = run.forecast(overhead)
        rows.append(
            {
                "model": _family(run),
                "gpu": run.gpu,
                "backend": run.backend,
                "ttft": abs(ttft / run.ttft_seconds - 1),
                "tpot": abs(tpot / run.tpot_seconds - 1),
            }
        )
    return pd.DataFrame(rows)


def _family(run: Run) -> str:
    return MODELS[run.model]


def _medians(found: pd.DataFrame, by: list[str]) -> list[dict[str, Any]]:
    rows = []
    for key, part in found.groupby(by):
        names = dict(zip(by, key, strict=True))
        rows.append(
            {**names, "runs": len(part), "ttft": part["ttft"].median(), "tpot": part["tpot"].median()}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    runs = read_runs(parser.parse_args().table)
    constants, own, held = {}, [], []
    for backend in ("trtllm", "vllm", "sglang"):
        some = [run for run in runs if run.backend == backend]
        constants[backend] = fit(some)
        print(backend, constants[backend], flush=True)
        own.append(errors(some, constants[backend]))
        for family in sorted({_family(run) for run in some}):
            rest, test = ([r for r in some if (_family(r) == family) == side] for side in (False, True))
            found = errors(test, fit(rest))
            held.append(found)
            print(
                f"  without {family}: TPOT {found['tpot'].median():.1%}, TTFT {found['ttft'].median():.1%}",
                flush=True,
            )
    result: dict[str, Any] = {"goal": {"tpot": 0.10, "ttft": 0.20}, "constants": {}}
    result["constants"] = {name: dict(vars(value)) for name, value in constants.items()}
    for name, frames in (("calibrated", own), ("model_held_out", held)):
        found = pd.concat(frames, ignore_index=True)
        result[name] = {
            "all": {"runs": len(found), "ttft": found["ttft"].median(), "tpot": found["tpot"].median()},
            "by_gpu": _medians(found, ["gpu"]),
            "by_gpu_and_backend": _medians(found, ["gpu", "backend"]),
            "by_model_and_backend": _medians(found, ["model", "backend"]),
        }
        print(f"{name}: median error TPOT {found['tpot'].median():.1%}, TTFT {found['ttft'].median():.1%}")
        for row in result[name]["by_gpu_and_backend"]:
            print(
                f"  {row['gpu']} {row['backend']}: {row['runs']} runs, TPOT {row['tpot']:.1%}, TTFT {row['ttft']:.1%}"
            )
    print(write_result("gpu_end_to_end", result))


if __name__ == "__main__":
    main()
