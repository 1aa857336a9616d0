import pytest

from lapidist.hardware.wafer.communications import AllGather, Broadcast, Reduce, Shift
from lapidist.hardware.wafer.decoder_variant import DecoderVariant
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.prefill_layer import PrefillPlan, prefill_layer
from tests.hardware.wafer.dense_decoder import SmallShape

LLAMA3_8B = SmallShape(4096, 14336, num_heads=32, num_kv_heads=8, head_dim=128)
ONE_HEAD = SmallShape(4096, 14336, num_heads=1, num_kv_heads=1, head_dim=4096)


@pytest.mark.parametrize("shape", [LLAMA3_8B, ONE_HEAD], ids=["eight groups", "one head"])
@pytest.mark.parametrize("cores", [8, 32, 480, 600, 720])
def test_shifts_of_a_layer(shape: SmallShape, cores: int) -> None:
    """Nine products of P steps each, five alignments of P / 2 and one more, of V along y."""
    layer = prefill_layer(PrefillPlan(shape, cores, cores, 4096))
    turns = [(step, times) for step, times in layer.communications() if isinstance(step, Shift)]
    aligning_x = sum(times for step, times in turns if step.skew and step.axis == "x")
    aligning_y = sum(times for step, times in turns if step.skew and step.axis == "y")
    assert aligning_x == 5 * cores // 2
    assert aligning_y == cores // 2
    assert layer.summary().shifts == 9 * cores + 3 * cores
    assert all(step.hops <= 2 for step, _ in turns)


def test_four_allreduces_of_scalars_and_no_gathering() -> None:
    layer = prefill_layer(PrefillPlan(LLAMA3_8B, 720, 720, 4096))
    steps = [step for step, _ in layer.communications()]
    assert sum(isinstance(step, Broadcast) for step in steps) == 4
    assert sum(isinstance(step, Reduce) for step in steps) == 4
    assert not any(isinstance(step, AllGather) for step in steps)


@pytest.mark.parametrize("shape", [LLAMA3_8B, ONE_HEAD], ids=["eight groups", "one head"])
@pytest.mark.parametrize("cores", [360, 660, 720])
def test_routes_fit(shape: SmallShape, cores: int) -> None:
    layer = prefill_layer(PrefillPlan(shape, cores, cores, 4096))
    summary = Mesh(load_device("wse-2"), cores, cores).admit(layer)
    assert summary.paths_per_core <= 24
    assert summary.reconfigurations == 2


def test_memory_counts_the_weights_of_all_layers_of_a_region() -> None:
    plan = PrefillPlan(LLAMA3_8B, 720, 720, 4096)
    one, six = prefill_layer(plan).summary(), prefill_layer(plan, layers=6).summary()
    padded = 90 * 2  # dimensions of a head on 90 columns
    layer = 4320 * padded * (32 + 8 + 8 + 32) / 720**2 + 3 * 6 * 20 + 2 * 6
    cache = 6 * 2 * 2
    assert six.peak_elements - one.peak_elements == 5 * (layer + cache)


def test_fewer_dimensions_than_slots_leave_slots_that_only_pass_scores_on() -> None:
    plan = PrefillPlan(LLAMA3_8B, 720, 720, 4096)
    assert (plan.group_slots_per_col, plan.value_slots_per_col, plan.head_values) == (8, 2, 1)
    assert plan.attended == 4 * 2


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes on core"):
        Mesh(load_device("wse-2"), 360, 360).admit(prefill_layer(PrefillPlan(LLAMA3_8B, 360, 360, 4096), 20))


@pytest.mark.parametrize(("rows", "cols"), [(4, 6), (6, 4), (5, 7), (8, 2), (1, 1)])
def test_slots_of_meshes_that_are_not_square(rows: int, cols: int) -> None:
    plan = PrefillPlan(LLAMA3_8B, rows, cols, 100)
    assert plan.slots % rows == plan.slots % cols == 0
    assert plan.slots % plan.group_slots == 0
    assert plan.group_slots * plan.group_slot_tokens == plan.slots * plan.slot_tokens >= 100
    assert prefill_layer(plan).summary().hops_per_step >= 0


def test_empty_work_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0 tokens on 4 x 4"):
        PrefillPlan(LLAMA3_8B, 4, 4, 0)


def test_what_families_add() -> None:
    """Qwen3's norms of heads are one all-reduce more, Gemma-2's norms behind its blocks two; shifts stay."""
    plain = prefill_layer(PrefillPlan(LLAMA3_8B, 480, 480, 4096))
    for variant, more in (
        (DecoderVariant(qk_norm=True), 1),
        (DecoderVariant(sandwich_norms=True), 2),
        (DecoderVariant(qkv_bias=True, o_bias=True, mlp_bias=True, attention_softcap=True), 0),
    ):
        found = prefill_layer(PrefillPlan(LLAMA3_8B, 480, 480, 4096, variant))
        assert sum(isinstance(step, Broadcast) for step, _ in found.communications()) == 4 + more
        assert found.summary().shifts == plain.summary().shifts
        assert found.summary().paths_per_core == plain.summary().paths_per_core
        assert found.summary().reconfigurations == 2
