"""TTFT and TPOT of mixture-of-experts models on GPUs against public end-to-end measurements.

``python -m benchmarks.hardware.gpu_end_to_end_moe TABLE``: attention, projections and what engines add to every model
are those of dense models; the experts are the shipped MoE model (SGLang's kernels, whatever the engine). Seven
constants of experts (``ExpertOverhead``) per engine, and per generation of GPUs, are fitted as in ``gpu_end_to_end``:
to a sample of the runs, by first differences about the constants that ship, once with all and once without each model
and each GPU; without any other run of the engine plausible ones stand. Every error reported is that of a simulation.
What ships is such a fit to all runs, rounded. Kimi-K2.5 is never fitted to.

The weights of gpt-oss are 4-bit floats, which the public tables have only as multiplied after conversion to bf16;
engines multiply them as they are, so that Marlin's kernel of 4-bit integers stands for them. Experts were measured on
H100 and H200, so that B200 and B300 are answered by those, there with 4-bit floats at the law's rate. Kimi's latent
attention is the law of ``latent_attention``. DeepSeek is left out, whose runs speculate or do not, which the table does
not tell; so are models with linear or sparse attention (Qwen3.5, GLM-5). Twenty minutes on two cores.
"""

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from copy import copy
from dataclasses import dataclass, fields, replace
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from benchmarks.hardware.measured_serving import (
    MEMORY_SHARE,
    PAGE,
    Run,
    Served,
    error_row,
    kernel_models,
    medians,
    read_runs,
    simulate,
)
from benchmarks.hardware.serving_fit import Numbers, Response, loss, respond, sample
from benchmarks.result_file import write_result
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.expert_overhead import AS_MEASURED, ExpertOverhead, expert_overhead
from lapidist.hardware.gpu.gpu import GPU
from lapidist.hardware.gpu.serving_overhead import BY_BACKEND, NONE, ServingOverhead
from lapidist.models.config import ModelConfig
from lapidist.planner.memory_fit import fit_memory
from lapidist.planner.step_cost import Cost, Floats, StepCost, token_grid
from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.operators import ExpertMLP
from lapidist.workload.tensor_format import TensorFormat

GOALS = {"tpot": 0.10, "ttft": 0.20}
_CHUNK = 8  # runs of one series in a row, whose tables a worker then has
_SAMPLE = 30  # runs per set of constants that are fitted to
_BF16, _FP8 = TensorFormat("bf16"), TensorFormat("fp8")
_FP8_RECIPE = Recipe("fp8", _FP8, _FP8, _BF16, _BF16)
_NO_EXPERTS = ExpertOverhead(0.0, 0.0, 0.0, 0.0, 0.0, 1e-12, 0.0)  # next to nothing
# Fields of ExpertOverhead: what is plausible, and how far off it may well be.
_PLAUSIBLE = {
    "few_rows": (1.0, 0.3),
    "many_rows": (1.0, 0.4),
    "few_rows_fp4": (0.8, 0.3),
    "many_rows_fp4": (1.0, 0.4),
    "token_seconds": (0.04e-6, 0.06e-6),
    "layer_seconds": (8e-6, 10e-6),
    "prefill_seconds": (0.15e-3, 0.3e-3),
}
Set = tuple[str, bool]  # engine, and whether on Blackwell
_PRIOR, _SCALE = np.array(list(_PLAUSIBLE.values())).T


@dataclass(frozen=True)
class Mixture:
    """A model of ``models.expert_shapes``, the formats of its public checkpoint, and of its cut to 4-bit floats."""

    shape: str
    recipe: Recipe
    four_bits: Recipe


_NVFP4 = replace(_FP8_RECIPE, name="nvfp4", expert_weight=TensorFormat("fp4", 16, group_overhead_bits=8))
_INT4 = replace(
    Recipe.named("bf16"), name="int4", expert_weight=TensorFormat("int4", 32, group_overhead_bits=16)
)
_MXFP4 = replace(
    Recipe.named("bf16"), name="mxfp4", expert_weight=TensorFormat("fp4", 32, group_overhead_bits=8)
)
MODELS = {
    "Qwen/Qwen3-235B-A22B-FP8": Mixture("qwen3-235b-a22b", _FP8_RECIPE, _NVFP4),
    "MiniMaxAI/MiniMax-M2.5": Mixture("minimax-m2", _FP8_RECIPE, _NVFP4),
    "openai/gpt-oss-120b": Mixture("gpt-oss-120b", _MXFP4, _MXFP4),
}
# No constant is fitted to these.
NOT_FITTED = {
    "moonshotai/Kimi-K2.5": Mixture(
        "kimi-k2", _INT4, replace(_INT4, name="nvfp4", expert_weight=_NVFP4.expert_weight)
    )
}


class ServedExperts(Served):
    """Steps without experts are priced once, and so are experts' kernels; constants are then tried at no cost."""

    def __init__(
        self, config: ModelConfig, recipe: Recipe, system: str, backend: str, ranks: tuple[int, int]
    ) -> None:
        self.experts = AS_MEASURED
        fused = replace(NONE, quantization_seconds=BY_BACKEND[backend].quantization_seconds)
        sheet = load_data_sheet(system)
        rest, kernels = (
            GPU(sheet, backend, overhead=fused, experts=each) for each in (_NO_EXPERTS, AS_MEASURED)
        )
        memory = int(MEMORY_SHARE * sheet.memory_bytes)

        def num_pages(sequences: int, tokens: int) -> int:
            found = fit_memory(
                config,
                recipe,
                ranks[0],
                memory,
                max_num_seqs=sequences,
                max_num_batched_tokens=tokens,
                page_size=PAGE,
                expert_parallel=ranks[1],
            )
            return found.num_pages

        def operator(tokens: int) -> ExpertMLP:
            found = lower(config, recipe, Step((SequenceStep(tokens, tokens),), 0), *ranks)
            return next(each for each in found if isinstance(each, ExpertMLP))

        self.one_token = operator(1)
        self._kernel: Callable[[int], float] = cache(
            lambda tokens: kernels.step([operator(tokens)]).breakdown["experts"] / self.one_token.count
        )
        super().__init__(config, recipe, ranks[0], [rest], num_pages, ranks[1])

    def with_constants(self, experts: ExpertOverhead) -> "ServedExperts":
        """The same tables."""
        found = copy(self)
        found.experts = experts
        return found

    def cost(self, overhead: ServingOverhead) -> StepCost:  # type: ignore[override]
        return _WithExperts(super().cost(overhead), self)

    def expert_seconds(self, tokens: int, prefill: bool) -> float:
        """Of all layers in one step."""
        grid = token_grid()
        index = np.searchsorted(grid, tokens, side="right") - 1
        points = grid[index : index + 2]
        kernel = float(np.interp(tokens, points, [self._kernel(point) for point in points]))
        one = self.one_token
        layer = self.experts.seconds(
            kernel, tokens, tokens * one.top_k / one.experts, one.weight.number == "fp4"
        )
        return one.count * (layer + (self.experts.prefill_seconds if prefill else 0.0))


@dataclass
class _WithExperts:
    """Costs of steps, experts included."""

    rest: StepCost
    served: ServedExperts

    def step(self, decodes: Sequence[int], chunks: Sequence[SequenceStep], logit_rows: int) -> Cost:
        tokens = len(decodes) + sum(chunk.query_length for chunk in chunks)
        seconds, joules = self.rest.step(decodes, chunks, logit_rows)
        return seconds + self.served.expert_seconds(tokens, bool(chunks)), joules

    def decode_run(self, kv_lengths: Sequence[int], steps: int) -> tuple[Floats, Floats]:
        seconds, joules = self.rest.decode_run(kv_lengths, steps)
        return seconds + self.served.expert_seconds(len(kv_lengths), False), joules


@cache
def served(
    model: str, system: str, backend: str, recipe_name: str, ranks: int, expert_ranks: int
) -> ServedExperts:
    mixture = (MODELS | NOT_FITTED)[model]
    config = ModelConfig.of_shape(mixture.shape, to_run=False)
    recipe = mixture.four_bits if recipe_name.startswith("nvfp4") else mixture.recipe
    return ServedExperts(config, recipe, system, backend, (ranks, expert_ranks))


def forecast(run: Run, experts: ExpertOverhead) -> tuple[float, float]:
    """Seconds of TTFT and TPOT."""
    found = served(run.model, run.system, run.backend, run.recipe, run.ranks, run.expert_ranks)
    return simulate(run, found.with_constants(experts), BY_BACKEND[run.backend])


def set_of(run: Run) -> Set:
    return run.backend, load_data_sheet(run.system).architecture == "blackwell"


def numbers(experts: ExpertOverhead) -> Numbers:
    return np.array([getattr(experts, name) for name in _PLAUSIBLE])


def constants_of(found: Numbers) -> ExpertOverhead:
    return ExpertOverhead(**dict(zip(_PLAUSIBLE, map(float, found), strict=True)))


def respond_about_shipped(run: Run) -> Response:
    base = numbers(expert_overhead(run.backend, load_data_sheet(run.system).architecture))
    return respond(run, base, _SCALE, lambda found: forecast(run, constants_of(found)))


def fit(responses: Sequence[Response]) -> ExpertOverhead:
    """As of dense models; plausible constants of no run."""
    if not responses:
        return constants_of(_PRIOR)
    error = loss(responses, _PRIOR, _SCALE, ttft_weight=0.5, pull=0.01)
    options = {"xtol": 1e-4, "ftol": 1e-7}
    results = []
    for start in (0.0, 0.3, -0.3):
        found = minimize(error, np.full(len(_PRIOR), start), method="Powell", options=options)
        results.append(minimize(error, found.x, method="Powell", options=options))
    best = min(results, key=lambda result: result.fun)
    return constants_of(np.maximum(0.0, _PRIOR + _SCALE * best.x))


def errors(runs: Sequence[Run], experts: ExpertOverhead, workers: Executor) -> pd.DataFrame:
    """One row a run; ratios are forecast over measured."""
    rows = []
    for run, found in zip(runs, workers.map(forecast, runs, repeat(experts), chunksize=_CHUNK), strict=True):
        row = error_row(run, *found)
        rows.append(
            {**row, "model": run.model, "recipe": run.recipe.split("-")[0], "expert_ranks": run.expert_ranks}
        )
    return pd.DataFrame(rows)


def held_out(runs: Sequence[Run], responses: Sequence[Response], key: str, workers: Executor) -> pd.DataFrame:
    """Errors on each model, or GPU, of one set by constants of its other runs; plausible ones if there is no other."""
    found = []
    for value in sorted({getattr(run, key) for run in runs}):
        others = [r for r in responses if getattr(r.run, key) != value]
        some = [run for run in runs if getattr(run, key) == value]
        found.append(errors(some, fit(others), workers))
    return pd.concat(found)


def summary(found: pd.DataFrame) -> dict[str, Any]:
    return {
        "all": medians(found)[0],
        "by_gpu": medians(found, ["gpu"]),
        "by_gpu_and_backend": medians(found, ["gpu", "backend"]),
        "rows": medians(found, ["model", "gpu", "backend", "recipe"]),
        "by_ranks": medians(found, ["model", "backend", "ranks", "expert_ranks"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    runs = read_runs(parser.parse_args().table, tuple(MODELS | NOT_FITTED))
    sets: dict[Set, list[Run]] = {}
    for run in runs:
        sets.setdefault(set_of(run), []).append(run)
    frames: dict[str, list[pd.DataFrame]] = {}
    fitted: dict[str, ExpertOverhead] = {}
    with ProcessPoolExecutor() as workers:
        for each, every in sorted(sets.items()):
            some = [run for run in every if run.model in MODELS]
            others = [run for run in every if run.model in NOT_FITTED]
            responses = list(workers.map(respond_about_shipped, sample(some, _SAMPLE), chunksize=_CHUNK))
            constants = fit(responses)
            fitted[f"{each[0]}_{'blackwell' if each[1] else 'hopper'}"] = constants
            print(each, constants, flush=True)
            of_set = {
                "fitted": errors(some, constants, workers),
                "model_held_out": held_out(some, responses, "model", workers),
                "gpu_held_out": held_out(some, responses, "system", workers),
            }
            if others:
                of_set["model_never_fitted"] = errors(others, constants, workers)
            for name, found in of_set.items():
                frames.setdefault(name, []).append(found)
                print(
                    f"  {name}: TPOT {found['tpot'].median():.1%}, TTFT {found['ttft'].median():.1%}",
                    flush=True,
                )
    result: dict[str, Any] = {
        "goal": GOALS,
        "kernel_models": kernel_models(),
        "constants": {k: {each.name: getattr(v, each.name) for each in fields(v)} for k, v in fitted.items()},
    }
    for name, parts in frames.items():
        found = pd.concat(parts, ignore_index=True)
        result[name] = summary(found)
        print(f"{name}: median error TPOT {found['tpot'].median():.1%}, TTFT {found['ttft'].median():.1%}")
        for row in [*result[name]["by_gpu"], *result[name]["rows"]]:
            where = " ".join(str(row[each]) for each in ("model", "gpu", "backend", "recipe") if each in row)
            print(
                f"  {where}: {row['runs']} runs, TPOT {row['tpot']:.1%} ({row['tpot_ratio']:.2f}), TTFT "
                f"{row['ttft']:.1%} ({row['ttft_ratio']:.2f})"
            )
    print(write_result("gpu_end_to_end_moe", result))


if __name__ == "__main__":
    main()
