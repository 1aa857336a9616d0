"""TTFT and TPOT of mixture-of-experts models on GPUs against public end-to-end measurements.

``python -m benchmarks.hardware.gpu_end_to_end_moe TABLE``: attention, projections and engine constants are those of
dense models, the experts are the shipped MoE model (SGLang's kernels, whatever the engine); nothing is fitted here.
The weights of gpt-oss are 4-bit floats, which the public tables have only as multiplied after conversion to bf16;
engines multiply them as they are, so that Marlin's kernel of 4-bit integers stands for them. Experts were measured on
H100 and H200, so that B200 and B300 are answered by those, there with 4-bit floats at the law's rate. Models with
latent or linear attention (DeepSeek, Kimi, GLM-5, Qwen3.5) are left out: their kernels were not measured.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

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
from benchmarks.result_file import write_result
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.gpu import GPU
from lapidist.hardware.gpu.serving_overhead import BY_BACKEND, NONE
from lapidist.models.config import ModelConfig
from lapidist.planner.memory_fit import fit_memory
from lapidist.workload import Recipe
from lapidist.workload.tensor_format import TensorFormat

MEASURED = ("h100", "h200")  # with tables of experts
_BF16, _FP8 = TensorFormat("bf16"), TensorFormat("fp8")
_FP8_RECIPE = Recipe("fp8", _FP8, _FP8, _BF16, _BF16)


@dataclass(frozen=True)
class Mixture:
    """A model of ``models.expert_shapes``, the formats of its public checkpoint, and of its cut to 4-bit floats."""

    shape: str
    recipe: Recipe
    four_bits: Recipe


_NVFP4 = replace(_FP8_RECIPE, name="nvfp4", expert_weight=TensorFormat("fp4", 16, group_overhead_bits=8))
_MXFP4 = replace(
    Recipe.named("bf16"), name="mxfp4", expert_weight=TensorFormat("fp4", 32, group_overhead_bits=8)
)
MODELS = {
    "Qwen/Qwen3-235B-A22B-FP8": Mixture("qwen3-235b-a22b", _FP8_RECIPE, _NVFP4),
    "MiniMaxAI/MiniMax-M2.5": Mixture("minimax-m2", _FP8_RECIPE, _NVFP4),
    "openai/gpt-oss-120b": Mixture("gpt-oss-120b", _MXFP4, _MXFP4),
}


@cache
def served(model: str, system: str, backend: str, recipe_name: str, ranks: int, expert_ranks: int) -> Served:
    mixture, sheet = MODELS[model], load_data_sheet(system)
    config = ModelConfig.of_shape(mixture.shape, to_run=False)
    recipe = mixture.four_bits if recipe_name.startswith("nvfp4") else mixture.recipe
    fused = BY_BACKEND[backend].quantization_seconds
    gpu = GPU(sheet, backend, overhead=replace(NONE, quantization_seconds=fused))
    memory = int(MEMORY_SHARE * sheet.memory_bytes)

    def num_pages(sequences: int, tokens: int) -> int:
        found = fit_memory(
            config,
            recipe,
            ranks,
            memory,
            max_num_seqs=sequences,
            max_num_batched_tokens=tokens,
            page_size=PAGE,
            expert_parallel=expert_ranks,
        )
        return found.num_pages

    return Served(config, recipe, ranks, [gpu], num_pages, expert_ranks)


def errors(runs: Sequence[Run]) -> pd.DataFrame:
    """One row a run; ratios are forecast over measured."""
    rows = []
    for run in runs:
        found = simulate(
            run,
            served(run.model, run.system, run.backend, run.recipe, run.ranks, run.expert_ranks),
            BY_BACKEND[run.backend],
        )
        rows.append(
            {
                **error_row(run, *found),
                "model": run.model,
                "recipe": run.recipe.split("-")[0],
                "expert_ranks": run.expert_ranks,
            }
        )
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", type=Path)
    found = errors(read_runs(parser.parse_args().table, tuple(MODELS)))
    measured = found["gpu"].isin(MEASURED)
    result: dict[str, Any] = {
        "goal": {"tpot": 0.10, "ttft": 0.20},
        "kernel_models": kernel_models(),
        "all": medians(found[measured])[0],
        "gpus_without_measured_experts": medians(found[~measured])[0],
        "by_gpu": medians(found, ["gpu"]),
        "rows": medians(found, ["model", "gpu", "backend", "recipe"]),
        "by_ranks": medians(found, ["model", "backend", "ranks", "expert_ranks"]),
    }
    for row in result["rows"]:
        print(
            f"{row['model']} {row['gpu']} {row['backend']} {row['recipe']}: {row['runs']} runs, TPOT {row['tpot']:.1%} "
            f"(ratio {row['tpot_ratio']:.2f}), TTFT {row['ttft']:.1%} (ratio {row['ttft_ratio']:.2f})"
        )
    for name in ("all", "gpus_without_measured_experts"):
        print(
            f"{name}: {result[name]['runs']} runs, TPOT {result[name]['tpot']:.1%}, TTFT {result[name]['ttft']:.1%}"
        )
    print(write_result("gpu_end_to_end_moe", result))


if __name__ == "__main__":
    main()
