from dataclasses import dataclass, replace

import pytest

from lapidist.hardware.gpu.gpu import GPU, OVERHEAD
from lapidist.hardware.gpu.serving_overhead import NONE, ServingOverhead
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
    sandwich_norms: bool = False
    sliding_windows: tuple[int | None, ...] = (None,) * 32
    embedding_scale: float = 1.0
    final_softcap: float | None = None


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
