from dataclasses import dataclass

import pytest

from lapidist.hardware.gpu.gpu import GPU
from lapidist.hardware.gpu.moe_gpu import EXPERTS, ROUTER, ExpertLayer, MoEGPU
from lapidist.hardware.gpu.moe_predictor import moe_predictor
from lapidist.hardware.gpu.serving_overhead import NONE
from lapidist.workload import Recipe, SequenceStep, Step, lower


@dataclass(frozen=True)
class _Shape:
    """Qwen3-235B-A22B without its experts."""

    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 64
    num_layers: int = 94
    num_heads: int = 64
    num_kv_heads: int = 4
    head_dim: int = 128
    hidden_act: str = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = True
    sandwich_norms: bool = False
    sliding_windows: tuple[int | None, ...] = (None,) * 94
    embedding_scale: float = 1.0
    final_softcap: float | None = None


_BF16 = Recipe.named("bf16")
_LAYER = ExpertLayer(4096, 1536, 8, 128, "fp8_block", tensor_parallel=4)


def _operators(batch: int):  # type: ignore[no-untyped-def]  # a list of operators
    return lower(_Shape(), _BF16, Step((SequenceStep(1, 2000),) * batch, batch), 4)


def test_experts_take_the_place_of_the_dense_mlp() -> None:
    gpu = GPU("h200", overhead=NONE)
    found = MoEGPU(gpu, _LAYER).step(_operators(16))
    assert sum(found.breakdown.values()) == pytest.approx(found.seconds)
    assert not {"gate_up_proj", "down_proj", "activation"} & set(found.breakdown)
    assert found.breakdown[ROUTER] > 0
    layer = moe_predictor("h200").predict(16, 4096, 1536, 8, 128, 4, 1, 1.01, "fp8_block").seconds[0]
    assert found.breakdown[EXPERTS] == pytest.approx(94 * layer)
    assert found.breakdown["mlp_all_reduce"] > 0
    assert found.joules > gpu.step(_operators(16)).joules


def test_steps_without_an_mlp_are_the_gpus_own() -> None:
    gpu = GPU("h200")
    attention = [each for each in _operators(4) if each.name == "attention"]
    assert MoEGPU(gpu, _LAYER).step(attention) == gpu.step(attention)
    assert MoEGPU(gpu, _LAYER).step([]) == gpu.step([])


def test_a_gpu_without_measured_experts_says_so() -> None:
    found = MoEGPU(GPU("b200"), _LAYER).step(_operators(4))
    assert any("were not measured on b200" in note for note in found.low_confidence)
