"""TTFT and TPOT of serving engines on GPUs against public end-to-end measurements.

``python -m benchmarks.hardware.gpu_end_to_end TABLE`` with aiconfigurator's ``e2e_silicon`` table: closed-loop runs of
dense models under TensorRT-LLM, vLLM and SGLang. Kernels come from the shipped models. Three constants per engine are
fitted, and two of its clients per campaign (a series of runs by one load generator): what a request costs before its
first step, and how far clients send in step, which the lengths decide that the generator draws and the table does not
tell. Fitted once to all rows and once per model without its rows, which is how they are judged; a campaign without
other models is then answered by the clients of the engine's other campaigns. What ships
(``serving_overhead.py``) is an earlier fit with one kind of clients per engine.
"""

import argparse
import math
import re
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
_OF_ENGINE, _OF_CLIENTS = 3, 2  # the first fields of ServingOverhead, and those after them


@dataclass(frozen=True)
class Run:
    """One measured configuration with what its steps cost without any overhead."""

    model: str
    gpu: str
    backend: str
    campaign: str
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
        _campaign(row.silicon_data_source),
        traffic,
        cache_tokens,
        config.num_layers,
        steps,
        row.silicon_ttft_ms / 1e3,
        row.silicon_tpot_ms / 1e3,
    )


def _campaign(source: str) -> str:
    """The load generator's series: the folder of engine and version, else the file."""
    file = re.sub(r"^source_file=", "", source.split(";")[0])
    folders = re.search(r"data/(\w+/\w+/[^/]+)/", file)
    return folders[1] if folders else file


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


@dataclass(frozen=True)
class Overheads:
    """Of one engine, by campaign; ``elsewhere`` stands for clients of a campaign that was not seen."""

    by_campaign: dict[str, ServingOverhead]
    elsewhere: ServingOverhead

    def of(self, run: Run) -> ServingOverhead:
        return self.by_campaign.get(run.campaign, self.elsewhere)


def fit(runs: Sequence[Run]) -> Overheads:
    """Constants that make the mean absolute log error least, drawn to plausible ones where the runs do not tell."""
    some = runs[:: max(1, len(runs) // 60)]
    campaigns = sorted({run.campaign for run in some})
    own = np.log(np.array(astuple(_PRIOR)[: _OF_ENGINE + _OF_CLIENTS]))
    prior = np.concatenate([own[:_OF_ENGINE], np.tile(own[_OF_ENGINE:], len(campaigns))])

    def loss(x: NDArray[np.float64]) -> float:
        return _log_error(some, _overheads(x, campaigns, some)) + 0.01 * float(np.square(x - prior).sum())

    in_step = np.zeros((len(campaigns), _OF_CLIENTS))
    in_step[:, -1] = 1.2  # from the other side, too: clients that send in step
    starts = (prior, prior + np.concatenate([np.zeros(_OF_ENGINE), in_step.ravel()]))
    options = {"maxfev": 120 * len(prior), "adaptive": True}
    results = [minimize(loss, start, method="Nelder-Mead", options=options) for start in starts]
    return _overheads(min(results, key=lambda result: result.fun).x, campaigns, runs)


def _overheads(x: NDArray[np.float64], campaigns: Sequence[str], runs: Sequence[Run]) -> Overheads:
    """From logarithms: the engine's, then two numbers per campaign; elsewhere is their mean over runs."""
    values = np.exp(np.minimum(x, 0.0))
    engine, clients = values[:_OF_ENGINE], values[_OF_ENGINE:].reshape(-1, _OF_CLIENTS)
    numbers = {campaign: row for row, campaign in enumerate(campaigns)}
    mean = np.mean([clients[numbers[run.campaign]] for run in runs if run.campaign in numbers], axis=0)
    found = [ServingOverhead(*map(float, (*engine, *of_clients))) for of_clients in (*clients, mean)]
    return Overheads(dict(zip(campaigns, found[:-1], strict=True)), found[-1])


def _log_error(runs: Sequence[Run], overheads: Overheads) -> float:
    total = 0.0
    for run in runs:
        ttft, tpot = run.forecast(overheads.of(run))
        total += abs(math.log(max(tpot, 1e-6) / run.tpot_seconds))
        total += 0.3 * min(1.0, abs(math.log(ttft / run.ttft_seconds)))
    return total / len(runs)


def errors(runs: Sequence[Run], overheads: Overheads) -> pd.DataFrame:
    rows = []
    for run in runs:
        ttft, tpot = run.forecast(overheads.of(run))
        rows.append(
            {
                "model": _family(run),
                "gpu": run.gpu,
                "backend": run.backend,
                "campaign": run.campaign,
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
        print(backend, constants[backend].elsewhere, flush=True)
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
    result["constants"] = {name: dict(vars(value.elsewhere)) for name, value in constants.items()}
    result["constants_by_campaign"] = {
        name: {campaign: dict(vars(each)) for campaign, each in value.by_campaign.items()}
        for name, value in constants.items()
    }
    for name, frames in (("calibrated", own), ("model_held_out", held)):
        found = pd.concat(frames, ignore_index=True)
        result[name] = {
            "all": {"runs": len(found), "ttft": found["ttft"].median(), "tpot": found["tpot"].median()},
            "by_gpu": _medians(found, ["gpu"]),
            "by_gpu_and_backend": _medians(found, ["gpu", "backend"]),
            "by_model_and_backend": _medians(found, ["model", "backend"]),
            "by_campaign_and_backend": _medians(found, ["campaign", "backend"]),
        }
        print(f"{name}: median error TPOT {found['tpot'].median():.1%}, TTFT {found['ttft'].median():.1%}")
        for row in result[name]["by_gpu_and_backend"]:
            print(
                f"  {row['gpu']} {row['backend']}: {row['runs']} runs, TPOT {row['tpot']:.1%}, TTFT {row['ttft']:.1%}"
            )
    print(write_result("gpu_end_to_end", result))


if __name__ == "__main__":
    main()
