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
from lapidist.hardware.gpu.moe_gpu import ExpertLayer, MoEGPU
from lapidist.hardware.gpu.serving_overhead import BY_BACKEND, NONE
from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.tensor_format import TensorFormat

MEASURED = ("h100", "h200")  # with tables of experts
_BF16, _FP8 = TensorFormat("bf16"), TensorFormat("fp8")
_FP8_RECIPE = Recipe("fp8", _FP8, _FP8, _BF16, _BF16)
_RESERVED_BYTES = 2e9
_EXPERT_BYTES = {"fp8_block": 1.0, "int4_wo": 0.53125, "nvfp4": 0.5625}


@dataclass(frozen=True)
class MoEShape:
    """A decoder whose MLP is ``experts`` of ``inner``; the dense one that lowering sees is dropped."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    inner: int
    top_k: int
    experts: int
    head_dim: int = 128
    qk_norm: bool = False
    qkv_bias: bool = False
    o_bias: bool = False
    window: int | None = None
    intermediate_size: int = 64
    hidden_act: str = "silu"
    mlp_bias: bool = False
    sandwich_norms: bool = False
    embedding_scale: float = 1.0
    final_softcap: float | None = None

    @property
    def sliding_windows(self) -> tuple[int | None, ...]:
        return tuple(self.window if layer % 2 == 0 else None for layer in range(self.num_layers))


# Source: config.json of each model's repository on the Hugging Face hub; format of the experts, recipe of the rest.
MODELS: dict[str, tuple[MoEShape, str, Recipe]] = {
    "Qwen/Qwen3-235B-A22B-FP8": (
        MoEShape(151936, 4096, 94, 64, 4, 1536, 8, 128, qk_norm=True),
        "fp8_block",
        _FP8_RECIPE,
    ),
    "MiniMaxAI/MiniMax-M2.5": (
        MoEShape(200064, 3072, 62, 48, 8, 1536, 8, 256, qk_norm=True),
        "fp8_block",
        _FP8_RECIPE,
    ),
    "openai/gpt-oss-120b": (
        MoEShape(201088, 2880, 36, 64, 8, 2880, 4, 128, head_dim=64, qkv_bias=True, o_bias=True, window=128),
        "int4_wo",
        Recipe.named("bf16"),
    ),
}


@cache
def served(model: str, system: str, backend: str, recipe_name: str, ranks: int, expert_ranks: int) -> Served:
    shape, dtype, recipe = MODELS[model]
    sheet = load_data_sheet(system)
    if recipe_name.startswith("nvfp4") and "fp4" in sheet.operations_per_cycle_per_sm:
        dtype = "nvfp4"
    tensor_ranks = max(1, ranks // expert_ranks)
    layer = ExpertLayer(
        shape.hidden_size, shape.inner, shape.top_k, shape.experts, dtype, tensor_ranks, expert_ranks
    )
    fused = BY_BACKEND[backend].quantization_seconds
    machine = MoEGPU(GPU(sheet, backend, overhead=replace(NONE, quantization_seconds=fused)), layer)
    elements = 3 * shape.hidden_size * shape.inner * shape.experts * shape.num_layers / ranks
    one = lower(shape, recipe, Step((SequenceStep(1, 1),), 1), ranks)
    weights = elements * _EXPERT_BYTES[dtype] + sum(each.count * each.weight_bytes for each in one)
    kv_heads = max(1, shape.num_kv_heads // ranks)
    token = 2 * shape.num_layers * recipe.kv.byte_count(kv_heads, shape.head_dim)
    room = MEMORY_SHARE * sheet.memory_bytes - weights - _RESERVED_BYTES
    pages = max(0, int(room / token / PAGE))
    return Served(shape, recipe, ranks, [machine], lambda sequences, tokens: pages)


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
