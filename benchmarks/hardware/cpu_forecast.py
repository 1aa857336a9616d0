"""Does a plan for this CPU forecast what the engine then does on it? Three traces that nothing was fitted on.

    python -m benchmarks.hardware.cpu_forecast                                  # the bundled model, about 3 minutes
    python -m benchmarks.hardware.cpu_forecast --checkpoint out/llama-3.2-1b    # about 6 minutes

Each round measures the machine (``lapidist cpu measure``), then takes every trace through the engine, as ``lapidist
bench serve`` does, and through the simulation. Rates are set to a share of what the first forecast says the machine can
do. Every step that the engine ran is set beside what the profile says of it, too. Claims: throughput within 10 %,
median TTFT and TPOT within 15 %, by the medians over the rounds.
"""

import argparse
import asyncio
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
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
from lapidist.planner.machine_watch import MachineWatch
from lapidist.planner.recipes import checkpoint_recipe
from lapidist.planner.simulation import ServingSettings, Simulation
from lapidist.planner.step_cost import TabledStepCost
from lapidist.workload.lowering import lower
from lapidist.workload.serving_metrics import Metrics, summarize
from lapidist.workload.step import Step, read_steps
from lapidist.workload.trace_spec import TraceSpec

AZURE = Path(__file__).parents[2].parent / "shared" / "data" / "azure_llm_2023_conversation.csv.gz"
CLAIMS = {"output_tokens_per_second": 0.10, "ttft_p50_seconds": 0.15, "tpot_p50_seconds": 0.15}
MAX_SEQS, MAX_TOKENS = 64, 512
# After a longer pause the engine had nothing to do.
PAUSE_SECONDS = 5e-3


@dataclass(frozen=True)
class Case:
    """A trace, and the share of the machine's best throughput that its rate asks for; None is offline."""

    name: str
    spec: TraceSpec
    load: float | None


@dataclass
class Outcome:
    """Of all rounds: numbers by trace, its requests per second, and who else was at work.

    Attributes
    ----------
    steps : forecast over measured seconds of every step, less 1, by trace and kind of step.
    others_cores : cores that other processes kept busy, in each measurement of operators and each trace.
    """

    rows: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    overheads: list[dict[str, float]] = field(default_factory=list)
    steps: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    others_cores: list[float] = field(default_factory=list)


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


def engine(checkpoint: Path, context: int, record: Path) -> AsyncLLM:
    """A fresh one for each round, whose prefix cache knows none of the prompts."""
    return AsyncLLM(
        checkpoint,
        max_model_len=context,
        max_num_seqs=MAX_SEQS,
        max_num_batched_tokens=MAX_TOKENS,
        max_queue=sys.maxsize,
        record=record,
    )


def forecast(config: ModelConfig, profile: CPUProfile, spec: TraceSpec, context: int, pages: int) -> Metrics:
    trace, _ = spec.load(None, context)
    cost = TabledStepCost(CPU(profile), config, checkpoint_recipe(config))
    serving = ServingSettings(
        pages,
        max_num_seqs=MAX_SEQS,
        max_num_batched_tokens=MAX_TOKENS,
        request_seconds=profile.overhead.request,
    )
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
    parser.add_argument("--rounds", type=int, help="default: 3 for tiny, else 1")
    parser.add_argument(
        "--budget",
        type=float,
        help="seconds for operators and for the engine, each round; default: 20 for tiny, else 45",
    )
    parser.add_argument("--requests", type=int, help="of each trace; default: 120 for tiny, else 20")
    parser.add_argument("--name", default=None, help="of the result file")
    args = parser.parse_args()
    began = time.monotonic()
    rounds = args.rounds or (3 if args.checkpoint == TINY else 1)
    requests = args.requests or (120 if args.checkpoint == TINY else 20)
    budget = args.budget or (20.0 if args.checkpoint == TINY else 45.0)
    config = ModelConfig.from_directory(args.checkpoint)
    context = min(2048, config.max_position_embeddings)
    outcome = Outcome()
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}: measuring, about {2 * budget:.0f} s", flush=True)
        profile = measure_cpu(
            args.checkpoint, model=args.checkpoint.name, budget_seconds=budget, max_context=context
        )
        outcome.overheads.append(asdict(profile.overhead))
        outcome.others_cores.append(profile.others_cores)
        print(f"  {profile.overhead}", flush=True)
        run_round(args.checkpoint, config, profile, context, requests, outcome)
        # After each round: who is interrupted keeps what there is.
        report(args.checkpoint.name, args.name, requests, number + 1, time.monotonic() - began, outcome)


def report(
    checkpoint: str, name: str | None, requests: int, rounds: int, seconds: float, outcome: Outcome
) -> None:
    """Write the result file and print how far the forecasts are off."""
    traces = {trace: judge(entry) for trace, entry in outcome.rows.items()}
    result = {
        "checkpoint": checkpoint,
        "rounds": rounds,
        "requests_per_trace": requests,
        "requests_per_second": outcome.rates,
        "seconds_taken": seconds,
        "overheads": outcome.overheads,
        # Well above 0: others were at work, and the result says little.
        "others_cores_in_each_measurement_and_trace": outcome.others_cores,
        "claims": {metric: f"within {limit:.0%}" for metric, limit in CLAIMS.items()},
        "traces": traces,
        "median_relative_error_of_steps": {
            trace: {kind: [statistics.median(errors), len(errors)] for kind, errors in sorted(kinds.items())}
            for trace, kinds in outcome.steps.items()
        },
        "met": all(trace["met"] for trace in traces.values()),
    }
    for trace, judged in traces.items():
        errors = {key: f"{value:+.1%}" for key, value in judged["relative_error"].items()}
        print(trace, errors, judged["met"])
    print(f"written to {write_result(name or f'cpu_forecast_{checkpoint}', result)}", flush=True)


def run_round(
    checkpoint: Path, config: ModelConfig, profile: CPUProfile, context: int, requests: int, outcome: Outcome
) -> None:
    """Every trace through a fresh engine and through the plan."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "steps.jsonl"
        llm = engine(checkpoint, context, record)
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
            before, watch = llm.stats().steps, MachineWatch()
            run = Benchmark(spec).run(EngineTarget(llm), llm.tokenizer, context)
            measured = asyncio.run(run).metrics
            outcome.others_cores.append(watch.others_cores())
            entry = outcome.rows.setdefault(case.name, {"forecast": [], "measured": []})
            entry["forecast"].append(numbers(predicted))
            entry["measured"].append(numbers(measured))
            print(f"    forecast {entry['forecast'][-1]}\n    measured {entry['measured'][-1]}", flush=True)
            kinds = outcome.steps.setdefault(case.name, defaultdict(list))
            for kind, errors in step_errors(config, profile, list(read_steps(record))[before:]).items():
                kinds[kind] += errors
                print(f"    {kind}: {statistics.median(errors):+.1%} in the median of {len(errors)} steps")
        llm.shutdown()


def step_errors(
    config: ModelConfig, profile: CPUProfile, steps: Sequence[Step]
) -> defaultdict[str, list[float]]:
    """Forecast over measured seconds from a step's start to the next one's, less 1, by the kind of step."""
    machine, recipe = CPU(profile), checkpoint_recipe(config)
    errors: defaultdict[str, list[float]] = defaultdict(list)
    for step, later in pairwise(steps):
        assert step.start_seconds is not None
        assert step.duration_seconds is not None
        assert later.start_seconds is not None
        seconds = later.start_seconds - step.start_seconds
        if seconds > step.duration_seconds + PAUSE_SECONDS:
            continue
        queries = {each.query_length > 1 for each in step.sequences}
        if queries == {False}:
            size = 4 ** int(math.log(len(step.sequences), 4))
            kind = f"decode, {size} to {4 * size - 1} sequences"
        else:
            kind = "prefill" if queries == {True} else "prefill and decode"
        errors[kind].append(machine.step(lower(config, recipe, step)).seconds / seconds - 1)
    return errors


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
