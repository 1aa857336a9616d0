"""TTFT and TPOT of mixture-of-experts models on H100 and H200 against public end-to-end measurements.

``python -m benchmarks.hardware.gpu_end_to_end_moe TABLE``: nothing is fitted here. Attention, projections and engine
constants are those of dense models, the experts are the shipped MoE model (SGLang's kernels, whatever the engine).
Models with latent or linear attention (DeepSeek, Kimi, GLM-5, Qwen3.5) are left out: their kernels were not measured.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.result_file import write_result
from lapidist.hardware.estimate import Estimate
from lapidist.hardware.gpu.closed_loop import Traffic, closed_loop
from lapidist.hardware.gpu.gpu import GPU
from lapidist.hardware.gpu.moe_predictor import moe_predictor
from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.tensor_format import TensorFormat

_EXPERT_LAYERS = ("gate_up_proj", "down_proj", "activation")
_BF16, _FP8 = TensorFormat("bf16"), TensorFormat("fp8")
_FP8_RECIPE = Recipe("fp8", _FP8, _FP8, _BF16, _BF16)


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
        "mxfp4",
        Recipe.named("bf16"),
    ),
}
_EXPERT_BYTES = {"fp8_block": 1.0, "mxfp4": 0.53125}


def forecast(row: Any) -> dict[str, Any]:
    shape, dtype, recipe = MODELS[row.model_path]
    gpu, ranks = GPU(row.system, row.backend), int(row.tp_size)
    experts = moe_predictor(gpu.sheet)
    expert_parallel = max(1, int(row.moe_ep_size)) if row.moe_ep_size == row.moe_ep_size else 1
    tensor_parallel = max(1, ranks // expert_parallel)

    def cost(step: Step) -> Estimate:
        operators = [o for o in lower(shape, recipe, step, ranks) if o.name not in _EXPERT_LAYERS]
        rest = gpu.step(operators)
        layer = experts.predict(
            step.tokens,
            shape.hidden_size,
            shape.inner,
            shape.top_k,
            shape.experts,
            tensor_parallel,
            expert_parallel,
            1.01,
            dtype,
        )
        added = shape.num_layers * float(layer.seconds[0])
        return replace(rest, seconds=rest.seconds + added)

    traffic = Traffic(int(row.batch_size), int(row.isl), int(row.osl))
    expert_bytes = (
        3 * shape.hidden_size * shape.inner * shape.experts * shape.num_layers * _EXPERT_BYTES[dtype] / ranks
    )
    other = sum(o.count * o.weight_bytes for o in lower(shape, recipe, Step((SequenceStep(1, 1),), 1), ranks))
    token = 2 * shape.num_layers * recipe.kv.byte_count(max(1, shape.num_kv_heads // ranks), shape.head_dim)
    room = (0.9 * gpu.sheet.memory_bytes - expert_bytes - other - 2e9) / token
    overhead = gpu.overhead
    found = closed_loop(
        cost,
        traffic,
        max(room, traffic.prompt_tokens + traffic.output_tokens),
        request_seconds=overhead.request_seconds,
        synchrony=overhead.synchrony if row.backend != "sglang" else 0.15,
    )
    return {
        "model": row.model_path,
        "gpu": gpu.name,
        "backend": row.backend,
        "ttft": abs(found.ttft_seconds / (row.silicon_ttft_ms / 1e3) - 1),
        "tpot": abs(found.tpot_seconds / (row.silicon_tpot_ms / 1e3) - 1),
        "tpot_ratio": found.tpot_seconds / (row.silicon_tpot_ms / 1e3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    table = pd.read_parquet(parser.parse_args().table)
    table = table[(table["mode"] == "agg") & table["model_path"].isin(MODELS)]
    table = table[table["system"].isin(["h100_sxm", "h200_sxm"]) & (table["tp_size"] <= 8)]
    table = table[table["attention_dp_size"].fillna(1).le(1)]
    found = pd.DataFrame([forecast(row) for _, row in table.iterrows()])
    rows = []
    for (model, gpu, backend), part in found.groupby(["model", "gpu", "backend"]):
        medians = {name: part[name].median() for name in ("tpot", "ttft", "tpot_ratio")}
        rows.append({"model": model, "gpu": gpu, "backend": backend, "runs": len(part), **medians})
        print(
            f"{model} {gpu} {backend}: {len(part)} runs, TPOT {medians['tpot']:.1%} (ratio "
            f"{medians['tpot_ratio']:.2f}), TTFT {medians['ttft']:.1%}"
        )
    everything = {"runs": len(found), "tpot": found["tpot"].median(), "ttft": found["ttft"].median()}
    print(f"all: {len(found)} runs, TPOT {everything['tpot']:.1%}, TTFT {everything['ttft']:.1%}")
    print(write_result("gpu_end_to_end_moe", {"all": everything, "rows": rows}))


if __name__ == "__main__":
    main()
