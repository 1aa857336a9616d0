"""Does a plan for this CPU forecast what the engine then does on it? Three traces that nothing was fitted on.

    python -m benchmarks.hardware.cpu_forecast                                  # the bundled model, about 5 minutes
    python -m benchmarks.hardware.cpu_forecast --checkpoint out/llama-3.2-1b    # about 6 minutes

Each round measures the operators (``lapidist cpu measure``), then takes every trace through the engine, as ``lapidist
bench serve`` does, and through the simulation. Rates are set to a share of what the first forecast says the machine can
do. Claims: throughput within 10 %, median TTFT and TPOT within 15 %, by the medians over the rounds.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.result_file import write_result
from lapidist.bundled import TINY
from lapidist.engine.async_llm import AsyncLLM
from lapidist.evaluation.serving.benchmark import Benchmark
from lapidist.evaluation.serving.engine_target import EngineTarget
from lapidist.hardware.cpu.cpu import CPU
from lapidist.hardware.cpu.profile import CPUProfile
from lapidist.models.config import ModelConfig
from lapidist.planner.cpu_measurement import measure_cpu
from lapidist.planner.recipes import checkpoint_recipe
from lapidist.planner.simulation import ServingSettings, Simulation
from lapidist.planner.step_cost import TabledStepCost
from lapidist.workload.serving_metrics import Metrics, summarize
from lapidist.workload.trace_spec import TraceSpec

AZURE = Path(__file__).parents[2].parent / "shared" / "data" / "azure_llm_2023_conversation.csv.gz"
CLAIMS = {"output_tokens_per_second": 0.10, "ttft_p50_seconds": 0.15, "tpot_p50_seconds": 0.15}
MAX_SEQS, MAX_TOKENS = 64, 512


@dataclass(frozen=True)
class Case:
    """A trace, and the share of the machine's best throughput that its rate asks for; None is offline."""

    name: str
    spec: TraceSpec
    load: float | None


@dataclass
class Outcome:
    """Of all rounds: numbers by trace, its requests per second, and how busy the machine was afterwards."""

    rows: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    load_averages: list[float] = field(default_factory=list)


def cases(requests: int) -> list[Case]:
    """Each with a seed of its own: equal ones would give prompts that begin alike."""
    short = TraceSpec(
        "poisson:1", requests, prompt_length="lognormal:160:0.6", output_length="lognormal:40:0.5"
    )
    burst = TraceSpec(
        "poisson:inf", requests, prompt_length="uniform:16:480", output_length="uniform:8:64", seed=1
    )
    found = [Case("poisson, 50 % load", short, 0.5), Case("offline burst", burst, None)]
    if AZURE.exists():
        found.append(Case("Azure conversation, 60 % load", TraceSpec(str(AZURE), requests, seed=2), 0.6))
    else:
        bursty = replace(short, variation=3.0, seed=2)
        found.append(Case("bursty arrivals, 60 % load (Azure trace not present)", bursty, 0.6))
    return found


def engine(checkpoint: Path, context: int) -> AsyncLLM:
    """A fresh one for each round, whose prefix cache knows none of the prompts."""
    return AsyncLLM(
        checkpoint,
        max_model_len=context,
        max_num_seqs=MAX_SEQS,
        max_num_batched_tokens=MAX_TOKENS,
        max_queue=sys.maxsize,
    )


def forecast(config: ModelConfig, profile: CPUProfile, spec: TraceSpec, context: int, pages: int) -> Metrics:
    trace, _ = spec.load(None, context)
    cost = TabledStepCost(CPU(profile), config, checkpoint_recipe(config))
    serving = ServingSettings(pages, max_num_seqs=MAX_SEQS, max_num_batched_tokens=MAX_TOKENS)
    result = Simulation(trace, serving, cost).run()
    return summarize(result.records, result.duration_seconds)


def numbers(metrics: Metrics) -> dict[str, float]:
    assert metrics.ttft is not None
    assert metrics.tpot is not None
    return {
        "output_tokens_per_second": metrics.output_tokens_per_second,
        "ttft_p50_seconds": metrics.ttft.p50,
        "tpot_p50_seconds": metrics.tpot.p50,
        "ttft_p95_seconds": metrics.ttft.p95,
        "tpot_p95_seconds": metrics.tpot.p95,
        "end_to_end_p50_seconds": metrics.end_to_end.p50 if metrics.end_to_end else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=TINY)
    parser.add_argument("--rounds", type=int, help="default: 2 for tiny, else 1")
    parser.add_argument("--budget", type=float, default=45.0, help="seconds to measure operators, each round")
    parser.add_argument("--requests", type=int, help="of each trace; default: 120 for tiny, else 20")
    parser.add_argument("--name", default=None, help="of the result file")
    args = parser.parse_args()
    began = time.monotonic()
    rounds = args.rounds or (2 if args.checkpoint == TINY else 1)
    requests = args.requests or (120 if args.checkpoint == TINY else 20)
    config = ModelConfig.from_directory(args.checkpoint)
    context = min(2048, config.max_position_embeddings)
    outcome = Outcome()
    for number in range(rounds):
        print(
            f"round {number + 1} of {rounds}: measuring operators, about {args.budget + 20:.0f} s", flush=True
        )
        profile = measure_cpu(
            args.checkpoint, model=args.checkpoint.name, budget_seconds=args.budget, max_context=context
        )
        run_round(args.checkpoint, config, profile, context, requests, outcome)
    result = {
        "checkpoint": args.checkpoint.name,
        "rounds": rounds,
        "requests_per_trace": requests,
        "requests_per_second": outcome.rates,
        "seconds_taken": time.monotonic() - began,
        # Well above the number of cores: others were at work, and the result says little.
        "load_average_after_each_trace": outcome.load_averages,
        "claims": {name: f"within {limit:.0%}" for name, limit in CLAIMS.items()},
        "traces": {name: judge(entry) for name, entry in outcome.rows.items()},
    }
    result["met"] = all(trace["met"] for trace in result["traces"].values())  # type: ignore[attr-defined]
    for name, trace in result["traces"].items():  # type: ignore[attr-defined]
        print(name, {key: f"{value:+.1%}" for key, value in trace["relative_error"].items()}, trace["met"])
    print(f"written to {write_result(args.name or f'cpu_forecast_{args.checkpoint.name}', result)}")


def run_round(
    checkpoint: Path, config: ModelConfig, profile: CPUProfile, context: int, requests: int, outcome: Outcome
) -> None:
    """Every trace through a fresh engine and through the plan."""
    llm = engine(checkpoint, context)
    pages = llm.stats().pages_total
    for case in cases(requests):
        spec = case.spec
        if case.load is not None:
            if case.name not in outcome.rates:
                offline = forecast(config, profile, replace(spec, rate=1e9), context, pages)
                outcome.rates[case.name] = round(case.load * offline.requests_per_second, 3)
            spec = replace(spec, rate=outcome.rates[case.name])
        predicted = forecast(config, profile, spec, context, pages)
        print(f"  {case.name}: forecast {predicted.duration_seconds:.0f} s, running it", flush=True)
        run = Benchmark(spec).run(EngineTarget(llm), llm.tokenizer, context)
        measured = asyncio.run(run).metrics
        outcome.load_averages.append(os.getloadavg()[0])
        entry = outcome.rows.setdefault(case.name, {"forecast": [], "measured": []})
        entry["forecast"].append(numbers(predicted))
        entry["measured"].append(numbers(measured))
        print(f"    forecast {entry['forecast'][-1]}\n    measured {entry['measured'][-1]}", flush=True)
    llm.shutdown()


def judge(entry: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over the rounds, and how far the forecast is off."""
    medians = {
        kind: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for kind, runs in entry.items()
    }
    errors = {name: medians["forecast"][name] / medians["measured"][name] - 1 for name in medians["measured"]}
    return {
        **medians,
        "runs": entry,
        "relative_error": errors,
        "met": all(abs(errors[name]) <= limit for name, limit in CLAIMS.items()),
    }


if __name__ == "__main__":
    main()
