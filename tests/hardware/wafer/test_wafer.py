"""A wafer behind the question that every hardware model answers."""

import math
from dataclasses import replace

import pytest

from lapidist.hardware.estimate import Hardware
from lapidist.hardware.wafer.llm_cost import LLMCost
from lapidist.hardware.wafer.regions import Grid
from lapidist.hardware.wafer.wafer import Wafer
from lapidist.models.config import ModelConfig
from lapidist.workload import Recipe, SequenceStep, Step, lower

LLAMA3 = ModelConfig.of_shape("llama-3-8b")
FP16 = Recipe.named("fp16")
WAFER = Wafer.named("wse-2", Grid(660, 660), Grid(360, 360))


def decode(context: int, batch: int = 1) -> Step:
    return Step(tuple(SequenceStep(1, context) for _ in range(batch)), logit_rows=batch)


def test_a_wafer_is_hardware() -> None:
    hardware: Hardware = WAFER
    assert hardware.name == "wse-2"
    found = hardware.step(lower(LLAMA3, FP16, decode(4096)))
    assert found.seconds == pytest.approx(sum(found.breakdown.values()))
    assert found.joules == pytest.approx(found.seconds * 15000)
    assert found.bound == "communication"
    assert found.low_confidence == ()
    low, high = found.interval_seconds
    assert low == pytest.approx(found.seconds / 1.139, rel=1e-3)
    assert high == pytest.approx(found.seconds * 1.139, rel=1e-3)
    assert {"qkv_proj", "attention", "lm_head", "embedding"} <= set(found.breakdown)


def test_operators_add_up_to_the_described_layers() -> None:
    """The same model as whole layers; a step's QKV and gate/up are one product each, which saves prefill steps."""
    llm = LLMCost(LLAMA3, WAFER.device, WAFER.model)
    seconds = WAFER.step(lower(LLAMA3, FP16, decode(4096))).seconds
    assert seconds * 1.1e9 == pytest.approx(llm.decode(4096, Grid(360, 360)).cycles, rel=0.15)
    prompt = Step((SequenceStep(4096, 4096),), logit_rows=1)
    found = WAFER.step(lower(LLAMA3, FP16, prompt))
    released = replace(llm, kernels="released").prefill(4096, Grid(660, 660)).cycles
    assert 0.7 * released < found.seconds * 1.1e9 < released
    assert found.bound == "compute"


def test_more_work_takes_longer() -> None:
    one, longer, eight = (
        WAFER.step(lower(LLAMA3, FP16, step)).seconds
        for step in (decode(1000), decode(30000), decode(1000, batch=8))
    )
    assert one < longer
    assert one < eight < 8 * one
    chunk = Step((SequenceStep(512, 2048), SequenceStep(1, 900)), logit_rows=1)
    assert WAFER.step(lower(LLAMA3, FP16, chunk)).seconds > one


def test_what_it_cannot_run_is_named() -> None:
    with pytest.raises(ValueError, match=r"qkv_proj: .* not with int8 \(input\); use the recipe fp16"):
        WAFER.step(lower(LLAMA3, Recipe.named("w4a8kv4-g128"), decode(100)))
    with pytest.raises(ValueError, match="tensor_parallel 1"):
        WAFER.step(lower(LLAMA3, FP16, decode(100), tensor_parallel=2))
    with pytest.raises(ValueError, match="do not fit on Cerebras WSE-2"):
        Wafer.named("wse-2", Grid(1000, 1000), Grid(360, 360))
    with pytest.raises(ValueError, match="no calibrated cost constants for 'dojo'"):
        Wafer.named("dojo", Grid(60, 60), Grid(60, 60))


def test_doubts_are_spoken() -> None:
    large = ModelConfig.of_shape("llama-3-70b")
    found = WAFER.step(lower(large, FP16, decode(4096)))
    assert "exceed the" in found.low_confidence[0]
    assert found.interval_seconds is None
    single = WAFER.step(lower(LLAMA3, Recipe.named("fp32"), decode(4096)))
    assert "fp32 is costed as fp16" in single.low_confidence[-1]


def test_unknown_power_gives_no_energy() -> None:
    dark = replace(WAFER, device=WAFER.device.with_values("test", watts=None))
    assert math.isnan(dark.step(lower(LLAMA3, FP16, decode(10))).joules)
