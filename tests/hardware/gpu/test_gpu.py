from dataclasses import dataclass, replace

import pytest

from lapidist.hardware.estimate import Estimate
from lapidist.hardware.gpu.expert_overhead import AS_MEASURED, ExpertOverhead
from lapidist.hardware.gpu.gpu import GPU, OVERHEAD
from lapidist.hardware.gpu.moe_predictor import moe_predictor
from lapidist.hardware.gpu.serving_overhead import NONE, ServingOverhead
from lapidist.models.config import ModelConfig
from lapidist.planner.recipes import plan_recipe
from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.tensor_format import TensorFormat


@dataclass(frozen=True)
class _Shape:
    """Llama-3.1-8B."""

    vocab_size: int = 128256
    hidden_size: int = 4096
    intermediate_size: int = 14336
    num_layers: int = 32
    num_heads: int = 32
    num_kv_heads: int = 8
    head_dim: int = 128
    hidden_act: str = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    joint_qk_norm: bool = False
    sandwich_norms: bool = False
    sliding_windows: tuple[int | None, ...] = (None,) * 32
    embedding_scale: float = 1.0
    final_softcap: float | None = None
    experts: None = None
    latent: None = None


_BF16 = Recipe.named("bf16")


def _decode(batch: int, context: int) -> Step:
    return Step(tuple(SequenceStep(1, context) for _ in range(batch)), batch)


def test_a_step_is_the_sum_of_its_parts_and_energy_is_power_times_time() -> None:
    gpu = GPU("h200")
    estimate = gpu.step(lower(_Shape(), _BF16, _decode(32, 2000)))
    assert sum(estimate.breakdown.values()) == pytest.approx(estimate.seconds)
    assert estimate.joules == pytest.approx(estimate.watts * estimate.seconds, rel=1e-6)
    assert gpu.sheet.idle_watts < estimate.watts <= gpu.sheet.tdp_watts
    assert estimate.interval_seconds is not None
    low, high = estimate.interval_seconds
    assert low < estimate.seconds < high
    assert estimate.bound == "memory"


def test_a_decoding_step_is_no_faster_than_reading_weights_and_cache_once() -> None:
    operators = lower(_Shape(), _BF16, _decode(64, 4000))
    for name in ("h200", "a100", "l40s", "rtx-4090"):
        gpu = GPU(name, overhead=NONE)
        least = sum(o.count * (o.weight_bytes + o.kv_bytes) for o in operators if o.name != "embedding")
        floor = least / gpu.sheet.memory_bytes_per_second
        assert floor < gpu.step(operators).seconds < 5 * floor


def test_a_step_without_operators_costs_the_overhead_alone() -> None:
    gpu = GPU("h200", overhead=ServingOverhead(0.003, 1e-5, 0.0, 0.0))
    estimate = gpu.step([])
    assert estimate.seconds == pytest.approx(0.003)
    assert estimate.breakdown == {OVERHEAD: pytest.approx(0.003)}
    assert estimate.bound == "overhead"


def test_a_mixed_step_costs_less_than_its_halves() -> None:
    """Weights are read once for prefill and decode tokens together."""
    gpu = GPU("h200", overhead=NONE)
    prefill, decode = (SequenceStep(512, 512),), tuple(SequenceStep(1, 2000) for _ in range(64))
    apart = [gpu.step(lower(_Shape(), _BF16, Step(some, len(some)))).seconds for some in (prefill, decode)]
    mixed = gpu.step(lower(_Shape(), _BF16, Step((*prefill, *decode), 65))).seconds
    assert max(apart) < mixed < sum(apart)


def test_attention_of_unequal_sequences_keeps_their_work() -> None:
    gpu = GPU("h200", overhead=NONE)

    def attention(*sequences: SequenceStep) -> float:
        return gpu.step(lower(_Shape(), _BF16, Step(sequences, len(sequences)))).breakdown["attention"]

    equal = attention(*(SequenceStep(1, 4000) for _ in range(32)))
    unequal = attention(*(SequenceStep(1, 1000 if i % 2 else 7000) for i in range(32)))
    assert unequal == pytest.approx(equal, rel=1e-9)
    short = attention(*(SequenceStep(512, 512) for _ in range(16)))
    one_long = attention(SequenceStep(8192, 8192))
    assert short < one_long / 2


def test_tensor_parallelism_shortens_the_step_and_pays_for_the_exchange() -> None:
    gpu = GPU("h200", overhead=NONE)
    steps = [gpu.step(lower(_Shape(), _BF16, _decode(16, 4000), ranks)) for ranks in (1, 4)]
    assert steps[1].seconds < steps[0].seconds
    assert steps[1].breakdown["mlp_all_reduce"] > 0
    assert "mlp_all_reduce" not in steps[0].breakdown
    pcie = GPU("l40s", overhead=NONE).step(lower(_Shape(), _BF16, _decode(16, 4000), 4))
    assert pcie.breakdown["mlp_all_reduce"] > steps[1].breakdown["mlp_all_reduce"]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe.named("fp16"),
        Recipe.named("w8a8kv8"),
        Recipe.named("w4a16kv16"),
        Recipe.named("w4a8kv4-g128"),
        Recipe("fp8", TensorFormat("fp8"), TensorFormat("fp8"), TensorFormat("fp8"), TensorFormat("bf16")),
    ],
    ids=lambda recipe: recipe.name,
)
def test_quantized_models_decode_faster_than_bf16_where_weights_bound(recipe: Recipe) -> None:
    gpu = GPU("h200", overhead=NONE)
    plain = gpu.step(lower(_Shape(), _BF16, _decode(8, 500))).seconds
    assert gpu.step(lower(_Shape(), recipe, _decode(8, 500))).seconds < plain * 1.001


def test_formats_without_a_kernel_are_refused_by_name() -> None:
    odd = replace(_BF16, weight=TensorFormat("fp8"), activation=TensorFormat("int4"))
    with pytest.raises(ValueError, match="qkv_proj: fp8 weights by int4 inputs"):
        GPU("h200").step(lower(_Shape(), odd, _decode(1, 10)))
    fp8 = Recipe("fp8", TensorFormat("fp8"), TensorFormat("fp8"), TensorFormat("bf16"), TensorFormat("bf16"))
    with pytest.raises(ValueError, match="a100 does not compute in fp8"):
        GPU("a100").step(lower(_Shape(), fp8, _decode(1, 10)))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown backend 'llamacpp'"):
        GPU("h200", backend="llamacpp")
    with pytest.raises(ValueError, match="no data sheet"):
        GPU("voodoo2")


def test_doubts_are_passed_on() -> None:
    estimate = GPU("rtx-4090").step(lower(_Shape(), _BF16, _decode(1, 100)))
    assert any("attention was not measured on rtx-4090" in note for note in estimate.low_confidence)


def test_the_same_step_gives_the_same_bits() -> None:
    operators = lower(_Shape(), _BF16, _decode(5, 777))
    assert GPU("b200").step(operators) == GPU("b200").step(operators)


def _mixture(gpu: GPU, recipe: Recipe, batch: int, expert_ranks: int = 1) -> Estimate:
    config = ModelConfig.of_shape("qwen3-235b-a22b", to_run=False)
    step = Step((SequenceStep(1, 2000),) * batch, batch)
    return gpu.step(lower(config, recipe, step, 4, expert_ranks))


def test_experts_are_costed_by_their_own_model() -> None:
    gpu = GPU("h200", overhead=NONE, experts=AS_MEASURED)
    found = _mixture(gpu, Recipe.named("bf16"), 16)
    assert sum(found.breakdown.values()) == pytest.approx(found.seconds)
    assert found.breakdown["router"] > 0
    layer = moe_predictor("h200").predict(16, 4096, 1536, 8, 128, 4, 1, 1.01, "bf16").seconds[0]
    assert found.breakdown["experts"] == pytest.approx(94 * layer)
    assert found.interval_seconds is not None
    assert found.interval_seconds[0] < found.seconds < found.interval_seconds[1]
    spread = _mixture(gpu, Recipe.named("bf16"), 16, expert_ranks=4)
    assert spread.breakdown["experts"] != found.breakdown["experts"]
    assert spread.breakdown["attention"] == found.breakdown["attention"]


def test_engines_add_to_experts_what_they_are_told() -> None:
    config = ModelConfig.of_shape("qwen3-235b-a22b", to_run=False)
    recipe = Recipe.named("bf16")
    bare, engine = (
        GPU("h200", overhead=NONE, experts=each)
        for each in (AS_MEASURED, ExpertOverhead(2.0, 2.0, 1.0, 1.0, 1e-6, 1e-5, 1e-4))
    )

    def added(step: Step) -> float:
        operators = lower(config, recipe, step, 4)
        found, plain = engine.step(operators), bare.step(operators)
        assert found.breakdown["attention"] == plain.breakdown["attention"]
        return found.seconds - plain.seconds - plain.breakdown["experts"]

    assert added(Step((SequenceStep(1, 500),) * 16, 16)) == pytest.approx(94 * (16e-6 + 1e-5))
    assert added(Step((SequenceStep(500, 500),), 1)) == pytest.approx(94 * (500e-6 + 1e-5 + 1e-4))


def test_experts_that_were_not_measured_are_told() -> None:
    fp8 = plan_recipe("fp8", ModelConfig.of_shape("qwen3-235b-a22b", to_run=False))
    assert not any("mixture" in note for note in _mixture(GPU("h200"), fp8, 4).low_confidence)
    assert any("were not measured on b200" in note for note in _mixture(GPU("b200"), fp8, 4).low_confidence)
    cut = Recipe.named("w4a8kv8-g128", "bf16")
    assert any("int4_wo kernels stand" in note for note in _mixture(GPU("h200"), cut, 4).low_confidence)


def test_formats_without_a_kernel_of_experts_are_refused() -> None:
    with pytest.raises(ValueError, match="experts: int8 weights by bf16 inputs"):
        _mixture(GPU("h200"), Recipe.named("w8a16kv16", "bf16"), 4)
    mixed = replace(Recipe.named("bf16"), expert_weight=TensorFormat("fp8"))
    with pytest.raises(ValueError, match="experts: fp8 weights by bf16 inputs"):
        _mixture(GPU("h200"), mixed, 4)


def test_4_bit_floats_of_experts_run_where_the_gpu_has_them() -> None:
    recipe = replace(Recipe.named("bf16"), expert_weight=TensorFormat("fp4", 32, group_overhead_bits=8))
    for gpu, kernel in (("h200", "int4_wo"), ("b200", "nvfp4")):
        found = _mixture(GPU(gpu, overhead=NONE, experts=AS_MEASURED), recipe, 64)
        layer = moe_predictor(gpu).predict(64, 4096, 1536, 8, 128, 4, 1, 1.01, kernel).seconds[0]
        assert found.breakdown["experts"] == pytest.approx(94 * layer)
        assert any("fp4 weights by bf16 inputs" in note for note in found.low_confidence)


def test_latent_attention_is_costed_and_doubted() -> None:
    config = ModelConfig.of_shape("kimi-k2", to_run=False)
    gpu, recipe = GPU("h200", overhead=NONE), Recipe.named("bf16")

    def attention(*sequences: SequenceStep) -> tuple[float, tuple[str, ...]]:
        operators = lower(config, recipe, Step(sequences, 1), 8)
        found = gpu.step([each for each in operators if each.name == "attention"])
        return found.seconds, found.low_confidence

    few, notes = attention(*[SequenceStep(1, 4096)] * 4)
    many, _ = attention(*[SequenceStep(1, 4096)] * 256)
    prompt, prompt_notes = attention(SequenceStep(4096, 4096))
    assert any("latent attention was not measured" in note for note in notes)
    assert not any("latent attention" in note for note in prompt_notes)
    # Never faster than the cache is read, nor than the arithmetic.
    cache = 61 * 256 * 4096 * 576 * 2
    assert many > cache / gpu.sheet.memory_bytes_per_second
    assert many > 4 * few
    flops = 61 * 2 * 8 * (192 + 128) * 4096 * 4097 / 2
    assert prompt > flops / gpu.sheet.operations_per_second("bf16")
