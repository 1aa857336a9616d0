"""TTFT and TPOT of ``lapidist plan`` against public end-to-end measurements of closed loops on GPUs.

``python -m benchmarks.hardware.plan_end_to_end TABLE`` with aiconfigurator's ``e2e_silicon`` table: dense models under
TensorRT-LLM, vLLM and SGLang, a sample of the runs. Everything is what ships: nothing is fitted here, while
``gpu_end_to_end`` fits an engine's constants to the same runs. Clients and the engines' settings are those of
``measured_serving``. Measured are means, so means are compared; medians are in the JSON too. Goals: median error of
TPOT at most 10 %, of TTFT at most 20 %.
"""

import argparse
import statistics
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.hardware.measured_serving import DENSE, Run, kernel_models, read_runs
from benchmarks.result_file import write_result
from lapidist.models.config import ModelConfig
from lapidist.planner.machines import find_machine
from lapidist.planner.plan import Option, PlanSettings, Traffic, plan
from lapidist.planner.recipes import plan_recipe

GOALS = {"tpot": 0.10, "ttft": 0.20}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    parser.add_argument("--every", type=int, default=8, help="take every so manieth run")
    args = parser.parse_args()
    rows = [forecast(run) for run in read_runs(args.table, tuple(DENSE))[:: args.every]]
    result = {
        "goal": GOALS,
        "kernel_models": kernel_models(),
        "runs": len(rows),
        "all": medians(rows)[0],
        "by_gpu": medians(rows, "gpu"),
        "by_backend": medians(rows, "backend"),
        "by_campaign": medians(rows, "campaign"),
        "rows": rows,
    }
    for entry in (result["all"], *result["by_gpu"], *result["by_backend"], *result["by_campaign"]):  # type: ignore[misc]
        print(entry)
    print(f"written to {write_result('plan_end_to_end', result)}")


def forecast(run: Run) -> dict[str, Any]:
    """One run: clients that each send the next request when the last one is answered."""
    config = ModelConfig.of_shape(DENSE[run.model])
    recipe = plan_recipe(run.recipe, config)
    protocol = run.protocol
    machine = replace(find_machine(run.system, config, recipe, run.backend), batching=protocol.batching)
    settings = PlanSettings(
        max_num_seqs=run.clients, max_num_batched_tokens=max(protocol.step_tokens, run.clients)
    )
    traffic = Traffic(run.trace(), None, run.clients)
    forecasts, refusals = plan(config, [Option(machine, recipe, run.ranks)], [traffic], settings)
    found = {
        "model": DENSE[run.model],
        "gpu": machine.name,
        "backend": run.backend,
        "campaign": run.campaign,
        "recipe": recipe.name,
        "tensor_parallel": run.ranks,
        "clients": run.clients,
        "prompt_tokens": run.prompt_tokens,
        "output_tokens": run.output_tokens,
    }
    if refusals:
        return found | {"refused": refusals[0].reason}
    metrics = forecasts[0].metrics
    for name, latency, measured in (
        ("ttft", metrics.ttft, run.ttft_seconds),
        ("tpot", metrics.tpot, run.tpot_seconds),
    ):
        assert latency is not None
        found |= {f"{name}_measured": measured, f"{name}_forecast": latency.mean}
        found |= {f"{name}_forecast_median": latency.p50, f"{name}_error": latency.mean / measured - 1}
    print(
        {key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()},
        flush=True,
    )
    return found


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
            entry[f"{metric}_met"] = entry[f"{metric}_median_error"] <= goal
        found.append(entry)
    return found


if __name__ == "__main__":
    main()
