"""Does a plan for this CPU forecast what the engine then does on it? Three traces that nothing was fitted on.

    python -m benchmarks.hardware.cpu_forecast                                  # the bundled model, about 7 minutes
    python -m benchmarks.hardware.cpu_forecast --checkpoint out/llama-3.2-1b    # about 14 minutes

A round measures the operators, as ``lapidist cpu measure`` does. Then every trace goes through an engine, as ``lapidist
bench serve`` does, and through the simulation. Rates are set to a share of what the first forecast says the machine can
do. The KV cache is as long service leaves it.

A virtual machine's pace changes by 5 to 50 % within seconds. So the engine around the operators is measured before the
first trace and after each one, a reference operator is timed all the while (``machine_pace``), and the forecast of a
trace is made from the measurements before and after it at the pace that the reference had during it; what it was from
those before the first trace, pace unknown, is reported beside it. Every step that the engine ran is set beside what the
profile says of it, too.

Claims: throughput within 10 %, median TTFT and TPOT within 15 %, by the median over the rounds of how far each was off.
"""

import argparse
import asyncio
import itertools
import math
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.hardware.machine_pace import MachinePace, PacedStepCost, bias, sensitivity
from benchmarks.result_file import write_result
from lapidist.bundled import TINY
from lapidist.engine.async_llm import AsyncLLM
from lapidist.evaluation.serving.benchmark import Benchmark
from lapidist.evaluation.serving.engine_target import EngineTarget
from lapidist.hardware.cpu.cpu import CPU
from lapidist.hardware.cpu.profile import CPUProfile
from lapidist.models.config import ModelConfig
from lapidist.planner.arrival_overhead import start_seconds
from lapidist.planner.cpu_measurement import measure_cpu
from lapidist.planner.engine_overhead import (
    Calibration,
    affordable_bursts,
    calibrate,
    fit_overhead,
    until_the_next,
    with_overhead,
)
from lapidist.planner.machine_watch import MachineWatch
from lapidist.planner.machines import cpu_machine
from lapidist.planner.recipes import checkpoint_recipe
from lapidist.planner.simulation import ServingSettings, Simulation
from lapidist.planner.step_cost import TabledStepCost
from lapidist.workload.lowering import lower
from lapidist.workload.serving_metrics import Metrics, summarize
from lapidist.workload.step import SequenceStep, Step, read_steps
from lapidist.workload.trace_spec import TraceSpec

AZURE = Path(__file__).parents[2].parent / "shared" / "data" / "azure_llm_2023_conversation.csv.gz"
CLAIMS = {"output_tokens_per_second": 0.10, "ttft_p50_seconds": 0.15, "tpot_p50_seconds": 0.15}
MAX_SEQS, MAX_TOKENS = 64, 512
# What of an overhead is no part of steps.
ARRIVALS = ("request", "wake", "arrival", "arrival_token")
# After a longer pause the engine had nothing to do.
PAUSE_SECONDS = 5e-3


@dataclass(frozen=True)
class Case:
    """A trace, and the share of the machine's best throughput that its rate asks for; None is offline."""

    name: str
    spec: TraceSpec
    load: float | None


@dataclass(frozen=True)
class Paced:
    """A profile at the pace that the machine had during a trace.

    Attributes
    ----------
    slower : the reference's time during the trace over that during the measurements before and after it.
    decode_exponent, prefill_exponent : how strongly steps follow the reference.
    decode, prefill : factors of the profile's forecasts of steps.
    """

    profile: CPUProfile
    slower: float = 1.0
    decode_exponent: float = 0.0
    prefill_exponent: float = 0.0
    decode: float = 1.0
    prefill: float = 1.0


@dataclass
class Outcome:
    """Of all rounds: numbers by trace, its requests per second, and who else was at work.

    Attributes
    ----------
    overheads : of the profile that each trace's forecast was made from, in each round.
    paces : what the reference says of each trace, see :class:`Paced`.
    steps : forecast over measured seconds of every step, less 1, by trace and kind of step.
    others_cores : cores that other processes kept busy, in each measurement of operators and each trace.
    """

    rows: dict[str, dict[str, list[dict[str, float]]]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    overheads: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    paces: dict[str, list[dict[str, float]]] = field(default_factory=dict)
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


def forecast(
    config: ModelConfig,
    paced: Paced,
    spec: TraceSpec,
    context: int,
    pages: int,
) -> Metrics:
    trace, _ = spec.load(None, context)
    tables = TabledStepCost(CPU(paced.profile), config, checkpoint_recipe(config))
    cost = PacedStepCost(tables, paced.decode, paced.prefill)
    machine = cpu_machine(paced.profile)
    serving = ServingSettings(
        pages,
        max_num_seqs=MAX_SEQS,
        max_num_batched_tokens=MAX_TOKENS,
        request_seconds=machine.request_seconds,
        arrival=machine.arrival,
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
    parser.add_argument("--rounds", type=int, help="default: 6 for tiny, else 3")
    parser.add_argument(
        "--budget",
        type=float,
        help="seconds for operators, and half of that for the engine each time; default: 12 for tiny, else 30",
    )
    parser.add_argument("--requests", type=int, help="of each trace; default: 160 for tiny, else 20")
    parser.add_argument("--name", default=None, help="of the result file")
    args = parser.parse_args()
    began = time.monotonic()
    is_tiny = args.checkpoint == TINY
    rounds = args.rounds or (6 if is_tiny else 3)
    requests = args.requests or (160 if is_tiny else 20)
    budget = args.budget or (12.0 if is_tiny else 30.0)
    config = ModelConfig.from_directory(args.checkpoint)
    context = min(2048, config.max_position_embeddings)
    outcome = Outcome()
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}: measuring operators, about {budget:.0f} s", flush=True)
        profile = measure_cpu(
            args.checkpoint,
            model=args.checkpoint.name,
            budget_seconds=budget,
            max_context=context,
            with_engine=False,
        )
        outcome.others_cores.append(profile.others_cores)
        Round(args.checkpoint, profile, context, budget / 2, outcome).run(cases(requests))
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
        "paces": outcome.paces,
        "traces": traces,
        "median_relative_error_of_steps": {
            trace: {kind: [statistics.median(errors), len(errors)] for kind, errors in sorted(kinds.items())}
            for trace, kinds in outcome.steps.items()
        },
        "met": all(trace["met"] for trace in traces.values()),
    }
    print(table(traces))
    missed = [trace for trace, judged in traces.items() if not judged["met"]]
    print(f"after {rounds} rounds the goals are " + (f"missed by: {'; '.join(missed)}" if missed else "met"))
    print(f"written to {write_result(name or f'cpu_forecast_{checkpoint}', result)}", flush=True)


def table(traces: dict[str, dict[str, Any]]) -> str:
    """As in docs/performance.md: how far forecasts are off, what misses its claim in bold, rounds in brackets."""
    lines = ["| | throughput | TTFT, P50 | TPOT, P50 |", "|---|---|---|---|"]
    for trace, judged in traces.items():
        for which, label in (("", trace), ("_beforehand", "measured beforehand only")):
            cells = []
            for metric, limit in CLAIMS.items():
                off = judged["relative_error" + which][metric]
                text = f"{100 * off:+.1f} %"
                runs = ", ".join(f"{100 * each[metric]:+.0f}" for each in judged["relative_errors" + which])
                cells.append((f"**{text}**" if abs(off) > limit else text) + f" ({runs})")
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


class Round:
    """Every trace through one engine and through the plan."""

    def __init__(
        self, checkpoint: Path, operators: CPUProfile, context: int, seconds: float, outcome: Outcome
    ) -> None:
        self.checkpoint, self.operators, self.context = checkpoint, operators, context
        self.config = ModelConfig.from_directory(checkpoint)
        self.seconds, self.outcome = seconds, outcome
        self.bursts = affordable_bursts(operators, self.config, seconds)
        self.seeds = itertools.count(1 << 32)  # no trace has such
        self.paces = MachinePace()
        self.calibrations: list[Calibration] = []

    def run(self, chosen: Sequence[Case]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.record = Path(folder) / "steps.jsonl"
            self.llm = engine(self.checkpoint, self.context, self.record)
            self.llm.age_cache()
            self.paces.watch(self.llm)
            self.pages = self.llm.stats().pages_total
            before = first = self.calibrate()
            for case in chosen:
                before = self.take(case, Paced(self.profile(first)), before)
            self.llm.shutdown()

    def calibrate(self) -> Calibration:
        found = asyncio.run(calibrate(self.llm, self.bursts, self.seconds, rounds=1, seeds=self.seeds))
        self.calibrations.append(found)
        return found

    def profile(self, *calibrations: Calibration) -> CPUProfile:
        return with_overhead(self.operators, self.config, list(read_steps(self.record)), calibrations)

    def undisturbed(self, steps: Sequence[Step], calibrations: Sequence[Calibration]) -> list[Step]:
        lasting = (step for each in calibrations for step in until_the_next(steps, each))
        return [step for step in lasting if not self.paces.disturbs(step)]

    def paced(self, calibrations: Sequence[Calibration], begin: float, end: float) -> Paced:
        """The profile at the machine's pace between two moments; how steps follow it, by all calibrations so far."""
        steps, wanted = list(read_steps(self.record)), self.paces.mean(begin, end)
        seen = self.undisturbed(steps, self.calibrations)
        kept = self.undisturbed(steps, calibrations)
        profile = self.profile(*calibrations)
        follows = sensitivity(seen, self.paces, step_seconds(self.config, profile))
        usual = statistics.fmean(self.paces.at(start_seconds(step)) for step in kept)
        kept = follows.at_pace(kept, self.paces, wanted)
        fitted = fit_overhead(self.operators, self.config, kept)
        arrivals = {name: getattr(profile.overhead, name) for name in ARRIVALS}
        overhead = replace(fitted, **arrivals)
        profile = replace(profile, overhead=overhead)
        factors = bias(kept, step_seconds(self.config, profile))
        return Paced(profile, math.exp(wanted - usual), follows.decode, follows.prefill, *factors)

    def take(self, case: Case, beforehand: Paced, before: Calibration) -> Calibration:
        """One trace; returns the measurement of the engine after it."""
        outcome, spec = self.outcome, case.spec
        if case.load is not None:
            if case.name not in outcome.rates:
                offline = self.forecast(beforehand, replace(spec, rate=1e9))
                outcome.rates[case.name] = round(case.load * offline.requests_per_second, 3)
            spec = replace(spec, rate=outcome.rates[case.name])
        expected = self.forecast(beforehand, spec)
        print(f"  {case.name}: forecast {expected.duration_seconds:.0f} s, running it", flush=True)
        begun, watch = self.llm.stats().steps, MachineWatch()
        run = Benchmark(spec).run(EngineTarget(self.llm), self.llm.tokenizer, self.context)
        begin = time.monotonic()
        measured = asyncio.run(run).metrics
        end = time.monotonic()
        outcome.others_cores.append(watch.others_cores())
        ended = self.llm.stats().steps
        after = self.calibrate()
        paced = self.paced((before, after), begin, end)
        entry = outcome.rows.setdefault(case.name, defaultdict(list))
        entry["forecast"].append(numbers(self.forecast(paced, spec)))
        entry["forecast_beforehand"].append(numbers(expected))
        entry["measured"].append(numbers(measured))
        outcome.overheads.setdefault(case.name, []).append(asdict(paced.profile.overhead))
        pace = {name: value for name, value in asdict(paced).items() if name != "profile"}
        outcome.paces.setdefault(case.name, []).append(pace)
        print(f"    {paced.profile.overhead}\n    {pace}")
        for name, runs in entry.items():
            print(f"    {name} { {metric: round(value, 6) for metric, value in runs[-1].items()} }")
        kinds = outcome.steps.setdefault(case.name, defaultdict(list))
        steps = list(read_steps(self.record))[begun:ended]
        for kind, errors in step_errors(self.config, paced, self.paces, steps).items():
            kinds[kind] += errors
            print(f"    {kind}: {statistics.median(errors):+.1%} in the median of {len(errors)} steps")
        return after

    def forecast(self, paced: Paced, spec: TraceSpec) -> Metrics:
        return forecast(self.config, paced, spec, self.context, self.pages)


def step_seconds(config: ModelConfig, profile: CPUProfile) -> Callable[[Step], float]:
    machine, recipe = CPU(profile), checkpoint_recipe(config)

    @cache
    def seconds(sequences: tuple[SequenceStep, ...], rows: int) -> float:
        return machine.step(lower(config, recipe, Step(sequences, rows))).seconds

    return lambda step: seconds(step.sequences, step.logit_rows)


def step_errors(
    config: ModelConfig, paced: Paced, paces: MachinePace, steps: Sequence[Step]
) -> defaultdict[str, list[float]]:
    """Forecast over measured seconds from a step's start to the next one's, less 1, by the kind of step."""
    expected = step_seconds(config, paced.profile)
    errors: defaultdict[str, list[float]] = defaultdict(list)
    for step, later in pairwise(steps):
        assert step.duration_seconds is not None
        seconds = start_seconds(later) - start_seconds(step)
        lasting = replace(step, duration_seconds=seconds)
        if paces.disturbs(lasting) or seconds > step.duration_seconds + PAUSE_SECONDS:
            continue
        queries = {each.query_length > 1 for each in step.sequences}
        if queries == {False}:
            size = 4 ** int(math.log(len(step.sequences), 4))
            kind = f"decode, {size} to {4 * size - 1} sequences"
        else:
            kind = "prefill" if queries == {True} else "prefill and decode"
        factor = paced.prefill if step.has_prompt else paced.decode
        errors[kind].append(factor * expected(step) / seconds - 1)
    return errors


def judge(entry: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """How far each round's forecasts are off, and the medians over the rounds, of which one is judged."""
    judged: dict[str, Any] = {"runs": entry}
    for which in ("", "_beforehand"):
        pairs = zip(entry["forecast" + which], entry["measured"], strict=True)
        errors = [{name: made[name] / was[name] - 1 for name in was} for made, was in pairs]
        judged["relative_errors" + which] = errors
        judged["relative_error" + which] = {
            name: statistics.median(each[name] for each in errors) for name in errors[0]
        }
    judged["met"] = all(abs(judged["relative_error"][name]) <= limit for name, limit in CLAIMS.items())
    return judged


if __name__ == "__main__":
    main()
