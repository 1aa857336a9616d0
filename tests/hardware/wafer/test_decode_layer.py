import pytest

from lapidist.hardware.wafer.communications import Broadcast, Reduce, Wave
from lapidist.hardware.wafer.decode_layer import CACHE_POLICIES, DecodePlan, decode_head, decode_layer
from lapidist.hardware.wafer.decoder_variant import DecoderVariant
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.steps import Multiply, Pointwise
from tests.hardware.wafer.dense_decoder import SmallShape

LLAMA3_8B = SmallShape(4096, 14336, num_heads=32, num_kv_heads=8, head_dim=128)
ONE_HEAD = SmallShape(4096, 14336, num_heads=1, num_kv_heads=1, head_dim=4096)


@pytest.mark.parametrize("shape", [LLAMA3_8B, ONE_HEAD], ids=["eight groups", "one head"])
@pytest.mark.parametrize("cores", [16, 360, 720])
def test_ten_allreduces_and_no_transpose(shape: SmallShape, cores: int) -> None:
    """Every communication is part of an all-reduce or the wave of the cache, whose messages go one hop."""
    layer = decode_layer(DecodePlan(shape, cores, cores, 12))
    steps = [step for step, _ in layer.walk()]
    assert sum(isinstance(step, Broadcast) for step in steps) == 10
    assert sum(isinstance(step, Reduce) and step.level == 0 for step in steps) == 10
    assert all(isinstance(step, Multiply | Pointwise | Reduce | Broadcast | Wave) for step in steps)
    (wave,) = [step for step in steps if isinstance(step, Wave)]
    assert wave.hops == wave.stages == 1
    assert sum(isinstance(step, Multiply) for step in steps) == 6


def test_colours_of_both_axes() -> None:
    """Two-trees on both axes take ten colours each; the wave of the cache goes up in two of them."""
    for policy in CACHE_POLICIES:
        found = decode_layer(DecodePlan(ONE_HEAD, 360, 360, 12, policy=policy)).summary()
        assert found.colours == 20
        assert found.paths_per_core <= 20
    grouped = decode_layer(DecodePlan(LLAMA3_8B, 360, 360, 12))
    assert Mesh(load_device("wse-2"), 360, 360).admit(grouped).paths_per_core <= 20


def test_what_families_add() -> None:
    """Qwen3's norms of heads are one all-reduce more, Gemma-2's norms behind its blocks two; no route more."""
    plain = decode_layer(DecodePlan(LLAMA3_8B, 360, 360, 12))
    for variant, more in (
        (DecoderVariant(qk_norm=True), 1),
        (DecoderVariant(sandwich_norms=True), 2),
        (DecoderVariant(qkv_bias=True, o_bias=True, mlp_bias=True, attention_softcap=True), 0),
    ):
        found = decode_layer(DecodePlan(LLAMA3_8B, 360, 360, 12, variant=variant))
        assert sum(isinstance(step, Broadcast) for step, _ in found.walk()) == 10 + more
        assert found.summary().paths_per_core == plain.summary().paths_per_core
        assert found.summary().peak_bytes >= plain.summary().peak_bytes
        assert all(isinstance(s, Multiply | Pointwise | Reduce | Broadcast | Wave) for s, _ in found.walk())


def test_elements_of_the_published_sequence() -> None:
    """WaferLLM section 4.3: what each of the ten all-reduces carries, with E / P = 16 and F / P = 56."""
    layer = decode_layer(DecodePlan(ONE_HEAD, 256, 256, 16))
    carried = [step.elements for step, _ in layer.walk() if isinstance(step, Broadcast)]
    assert carried == [1, 3 * 16, 16, 1, 1, 16, 16, 1, 2 * 56, 16]
    axes = [step.axis for step, _ in layer.walk() if isinstance(step, Broadcast)]
    assert axes == ["y", "y", "x", "y", "y", "y", "x", "y", "y", "x"]


def test_head_and_memory() -> None:
    plan = DecodePlan(LLAMA3_8B, 360, 360, 12)
    head = decode_head(plan, 128256)
    assert sum(isinstance(step, Broadcast) for step, _ in head.walk()) == 2
    cache = 12 * (1024 + 1024) / 360
    grown = decode_layer(DecodePlan(LLAMA3_8B, 360, 360, 24), layers=4).summary()
    small = decode_layer(plan, layers=4).summary()
    assert grown.peak_elements - small.peak_elements == pytest.approx(4 * cache, rel=0.7)


def test_empty_work_is_refused() -> None:
    with pytest.raises(ValueError, match="0 tokens a row"):
        DecodePlan(LLAMA3_8B, 4, 4, 0)
