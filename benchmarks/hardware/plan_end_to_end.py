"""TTFT and TPOT of ``lapidist plan`` against public end-to-end measurements of closed loops on GPUs.

``python -m benchmarks.hardware.plan_end_to_end TABLE`` with aiconfigurator's ``e2e_silicon`` table: dense models under
TensorRT-LLM, vLLM and SGLang, a sample of the runs. ``gpu_end_to_end`` answers the same runs in closed form and fits an
engine's constants to them; here the scheduler takes every step of every request, with the constants that ship.
Lengths are drawn from 80 % to all of the stated ones, as the usual serving benchmarks do: with equal lengths the
clients would send in step for ever, and every prompt would wait for all others. The table does not say whether it holds
medians or means, so both are compared. Goals: median error of TPOT at most
10 %, of TTFT at most 20 %.
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.hardware.gpu_end_to_end import MODELS, SEVERAL_WORKERS, SYSTEMS
from benchmarks.result_file import write_result
from lapidist.models.config import ModelConfig
from lapidist.planner.machines import find_machine
from lapidist.planner.plan import Option, PlanSettings, Traffic, plan
from lapidist.planner.recipes import plan_recipe
from lapidist.workload.generated_trace import generate_trace
from lapidist.workload.length_distribution import Uniform

GOALS = {"tpot": 0.10, "ttft": 0.20}
SETTINGS = PlanSettings(max_num_seqs=1024, max_num_batched_tokens=8192)
REQUESTS_PER_CLIENT = 5
SHORTEST = 0.8  # of the stated length


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--every", type=int, default=16, help="take every so manieth run")
    args = parser.parse_args()
    table = pd.read_parquet(args.table)
    table = table[(table["mode"] == "agg") & table["model_path"].isin(MODELS) & table["system"].isin(SYSTEMS)]
    table = table[~table["silicon_data_source"].str.contains("|".join(SEVERAL_WORKERS))]
    rows = [forecast(row) for row in table.iloc[:: args.every].to_dict("records")]
    result = {
        "goal": GOALS,
        "runs": len(rows),
        "all": medians(rows)[0],
        "by_gpu": medians(rows, "gpu"),
        "by_backend": medians(rows, "backend"),
        "rows": rows,
    }
    for entry in (result["all"], *result["by_gpu"], *result["by_backend"]):  # type: ignore[misc]
        print(entry)
    print(f"written to {write_result('plan_end_to_end', result)}")


def forecast(row: dict[str, Any]) -> dict[str, Any]:
    """One run: clients that each send the next request when the last one is answered."""
    config = ModelConfig.of_shape(MODELS[row["model_path"]])
    recipe = plan_recipe(recipe_name(row["precision"], row["backend"]), config)
    machine = find_machine(row["system"], config, recipe, row["backend"])
    option, clients = Option(machine, recipe, int(row["tp_size"])), int(row["batch_size"])
    prompt, output = (Uniform(max(1, int(SHORTEST * row[name])), int(row[name])) for name in ("isl", "osl"))
    trace = generate_trace(REQUESTS_PER_CLIENT * clients, float("inf"), prompt, output)
    forecasts, refusals = plan(config, [option], [Traffic(trace, None, clients)], SETTINGS)
    found = {
        "model": MODELS[row["model_path"]],
        "gpu": machine.name,
        "backend": row["backend"],
        "recipe": recipe.name,
        "tensor_parallel": option.tensor_parallel,
        "clients": clients,
        "prompt_tokens": prompt.high,
        "output_tokens": output.high,
    }
    if refusals:
        return found | {"refused": refusals[0].reason}
    metrics = forecasts[0].metrics
    for name, latency in (("ttft", metrics.ttft), ("tpot", metrics.tpot)):
        assert latency is not None
        measured = float(row[f"silicon_{name}_ms"]) / 1e3
        found |= {f"{name}_measured": measured, f"{name}_forecast": latency.p50}
        found |= {f"{name}_forecast_mean": latency.mean, f"{name}_error": latency.p50 / measured - 1}
        found |= {f"{name}_mean_error": latency.mean / measured - 1}
    print(
        {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()},
        flush=True,
    )
    return found


def recipe_name(precision: object, backend: str) -> str:
    """TensorRT-LLM quantizes the cache too."""
    names = {"fp4": "nvfp4-kv8", "fp8": "fp8-kv8" if backend == "trtllm" else "fp8"}
    return names.get(str(precision), "bf16")


def medians(rows: list[dict[str, Any]], key: str | None = None) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if "tpot_error" in row:
            groups[row[key] if key else "all"].append(row)
    found = []
    for name, own in sorted(groups.items()):
        entry: dict[str, Any] = {"group": name, "runs": len(own)}
        for metric, goal in GOALS.items():
            errors = [row[f"{metric}_error"] for row in own]
            entry[f"{metric}_median_error"] = statistics.median(map(abs, errors))
            entry[f"{metric}_median_bias"] = statistics.median(errors)
            of_mean = [abs(row[f"{metric}_mean_error"]) for row in own]
            entry[f"{metric}_median_error_of_mean"] = statistics.median(of_mean)
            entry[f"{metric}_met"] = entry[f"{metric}_median_error"] <= goal
        found.append(entry)
    return found


if __name__ == "__main__":
    main()
