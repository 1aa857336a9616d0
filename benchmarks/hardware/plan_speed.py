"""How long does a plan of 10,000 requests take on one core?

    OMP_NUM_THREADS=1 python -m benchmarks.hardware.plan_speed

The first 10,000 requests of the Azure conversation trace that fit into 8192 tokens (or, where the file is absent, as
many made-up ones of about the same lengths), at its own rate, and at rates that fill and overfill the machine;
llama-3.1-8b on an H200. Processor time, not wall time, so that other work on the machine does not count. Claim: at most
20 seconds each.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.result_file import write_result
from lapidist.models.config import ModelConfig
from lapidist.planner.machines import find_machine
from lapidist.planner.plan import Option, PlanSettings, Traffic, plan
from lapidist.planner.recipes import plan_recipe
from lapidist.workload.azure_trace import read_azure_trace
from lapidist.workload.generated_trace import generate_trace
from lapidist.workload.length_distribution import LogNormal
from lapidist.workload.trace import Trace, scale_rate, within_context

AZURE = Path(__file__).parents[2].parent / "shared/data/azure_llm_2023_conversation.csv.gz"
REQUESTS, CONTEXT, LIMIT_SECONDS = 10_000, 8192, 20.0


def base_trace() -> Trace:
    if AZURE.exists():
        return within_context(read_azure_trace(AZURE), CONTEXT)[:REQUESTS]
    made_up = generate_trace(2 * REQUESTS, 5.5, LogNormal(900, 0.9), LogNormal(170, 0.7))
    return within_context(made_up, CONTEXT)[:REQUESTS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--machine", default="h200")
    parser.add_argument("--model", default="llama-3.1-8b")
    parser.add_argument("--recipe", default="bf16")
    args = parser.parse_args()
    config = ModelConfig.of_shape(args.model)
    recipe = plan_recipe(args.recipe, config)
    trace = base_trace()
    rows: list[dict[str, Any]] = []
    for factor in (0.3, 1.0, 4.0, 20.0):
        began = time.process_time()
        machine = find_machine(args.machine, config, recipe)
        traffic = Traffic(scale_rate(trace, factor), None)
        [forecast], _ = plan(config, [Option(machine, recipe, 1)], [traffic], PlanSettings())
        seconds = time.process_time() - began
        row = {
            "rate_factor": factor,
            "processor_seconds": seconds,
            "met": seconds <= LIMIT_SECONDS,
            "steps": forecast.result.steps,
            "peak_running": forecast.result.peak_running,
            "completed": forecast.metrics.completed,
            "simulated_seconds": forecast.result.duration_seconds,
        }
        print(row, flush=True)
        rows.append(row)
    result = {
        "machine": args.machine,
        "model": args.model,
        "recipe": args.recipe,
        "azure_trace": AZURE.exists(),
        "requests": len(trace),
        "claim": f"at most {LIMIT_SECONDS:.0f} processor seconds each, models of the machine loaded included",
        "rows": rows,
        "met": all(row["met"] for row in rows),
    }
    print(f"written to {write_result('plan_speed', result)}")


if __name__ == "__main__":
    main()
