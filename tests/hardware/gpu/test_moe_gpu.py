import pytest

from lapidist.hardware.gpu.gpu import GPU
from lapidist.hardware.gpu.moe_gpu import EXPERTS, ROUTER, ExpertLayer, MoEGPU
from lapidist.hardware.gpu.moe_predictor import moe_predictor
from lapidist.hardware.gpu.serving_overhead import NONE
from lapidist.models.config import ModelConfig
from lapidist.workload import Recipe, SequenceStep, Step, lower

# Attention and layers of a dense model; the experts' sizes are Qwen3-235B-A22B's.
_SHAPE = ModelConfig.of_shape("qwen3-32b")
_BF16 = Recipe.named("bf16")
_LAYER = ExpertLayer(4096, 1536, 8, 128, "fp8_block", tensor_parallel=4)


def _operators(batch: int):  # type: ignore[no-untyped-def]  # a list of operators
    return lower(_SHAPE, _BF16, Step((SequenceStep(1, 2000),) * batch, batch), 4)


def test_experts_take_the_place_of_the_dense_mlp() -> None:
    gpu = GPU("h200", overhead=NONE)
    found = MoEGPU(gpu, _LAYER).step(_operators(16))
    assert sum(found.breakdown.values()) == pytest.approx(found.seconds)
    assert not {"gate_up_proj", "down_proj", "activation"} & set(found.breakdown)
    assert found.breakdown[ROUTER] > 0
    layer = moe_predictor("h200").predict(16, 4096, 1536, 8, 128, 4, 1, 1.01, "fp8_block").seconds[0]
    assert found.breakdown[EXPERTS] == pytest.approx(_SHAPE.num_layers * layer)
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
