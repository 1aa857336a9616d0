from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.operators import (
    GEMM,
    Attention,
    Collective,
    ExpertMLP,
    Operator,
    total_flops,
    total_minimum_bytes,
)

BF16 = Recipe.named("bf16")


@dataclass(frozen=True)
class PlainShape:
    """What lowering needs of a model, and no more."""

    vocab_size: int = 1000
    hidden_size: int = 64
    intermediate_size: int = 160
    num_layers: int = 3
    num_heads: int = 8
    num_kv_heads: int = 4
    head_dim: int = 16
    hidden_act: str = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    joint_qk_norm: bool = False
    sandwich_norms: bool = False
    sliding_windows: tuple[int | None, ...] = (None, None, None)
    embedding_scale: float = 1.0
    final_softcap: float | None = None
    experts: "PlainExperts | None" = None
    latent: "PlainLatents | None" = None


LLAMA_3_8B = PlainShape(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    sliding_windows=(None,) * 32,
)


@st.composite
def shapes(draw: st.DrawFn) -> PlainShape:
    layers = draw(st.integers(1, 5))
    windows = st.lists(st.one_of(st.none(), st.integers(1, 64)), min_size=layers, max_size=layers)
    return PlainShape(
        vocab_size=draw(st.integers(1, 5000)),
        hidden_size=draw(st.integers(1, 300)),
        intermediate_size=8 * draw(st.integers(1, 100)),
        num_layers=layers,
        num_heads=8 * draw(st.integers(1, 4)),
        num_kv_heads=draw(st.sampled_from([1, 2, 4, 8])),
        head_dim=2 * draw(st.integers(1, 64)),
        hidden_act=draw(st.sampled_from(["silu", "gelu_pytorch_tanh"])),
        qkv_bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        sandwich_norms=draw(st.booleans()),
        sliding_windows=tuple(draw(windows)),
        embedding_scale=draw(st.sampled_from([1.0, 8.0])),
        final_softcap=draw(st.sampled_from([None, 30.0])),
    )


@st.composite
def steps(draw: st.DrawFn) -> Step:
    pairs = draw(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 90)), min_size=1, max_size=6))
    sequences = tuple(SequenceStep(query, query + past) for query, past in pairs)
    return Step(sequences, logit_rows=draw(st.integers(0, len(sequences))))


def only(operators: list[Operator], name: str) -> Operator:
    (found,) = [operator for operator in operators if operator.name == name]
    return found


def test_decode_of_llama_3_8b_by_hand() -> None:
    operators = lower(LLAMA_3_8B, BF16, Step((SequenceStep(1, 1024),), logit_rows=1))
    shape = {o.name: (o.count, o.m, o.n, o.k) for o in operators if isinstance(o, GEMM)}
    assert shape == {
        "qkv_proj": (32, 1, 6144, 4096),
        "o_proj": (32, 1, 4096, 4096),
        "gate_up_proj": (32, 1, 28672, 4096),
        "down_proj": (32, 1, 4096, 14336),
        "lm_head": (1, 1, 128256, 4096),
    }
    weight_bytes = sum(o.count * o.weight_bytes for o in operators)
    parameters = (
        8_030_261_248  # published size; a decode reads all but the embedding table, and one row of that
    )
    assert weight_bytes == 2 * (parameters - 128256 * 4096 + 4096)
    attention = only(operators, "attention")
    assert isinstance(attention, Attention)
    assert attention.count * (attention.kv_read_bytes + attention.kv_write_bytes) == 1024 * 131072


def test_gemma_2_has_all_its_extras_and_llama_none() -> None:
    gemma = PlainShape(
        hidden_act="gelu_pytorch_tanh", sandwich_norms=True, embedding_scale=8.0, final_softcap=30.0
    )
    step = Step((SequenceStep(5, 5),), logit_rows=1)
    extras = {"embedding_scale", "post_attention_norm", "post_mlp_norm", "final_softcap"}
    assert extras <= {operator.name for operator in lower(gemma, BF16, step)}
    assert not extras & {operator.name for operator in lower(PlainShape(), BF16, step)}


def test_alternating_windows_share_operators() -> None:
    shape = PlainShape(num_layers=4, sliding_windows=(8, None, 8, None))
    step = Step((SequenceStep(1, 100), SequenceStep(3, 50)), logit_rows=2)
    found = {
        (o.window, o.kv_length): (o.count, o.visible_kv)
        for o in lower(shape, BF16, step)
        if isinstance(o, Attention)
    }
    assert found == {(8, 100): (2, 8), (None, 100): (2, 100), (8, 50): (2, 10), (None, 50): (2, 50)}


def test_no_logit_rows_no_head() -> None:
    operators = lower(PlainShape(), BF16, Step((SequenceStep(5, 5),), logit_rows=0))
    assert "lm_head" not in {operator.name for operator in operators}


@given(shape=shapes(), step=steps(), recipe=st.sampled_from(["fp32", "bf16", "w4a8kv4-g128", "w8a8kv8"]))
def test_every_operator_costs_something(shape: PlainShape, step: Step, recipe: str) -> None:
    for operator in lower(shape, Recipe.named(recipe), step):
        assert operator.minimum_bytes > 0, operator
        assert operator.flops > 0 or operator.name == "embedding", operator
        assert operator.count >= 1, operator


@given(shape=shapes(), step=steps(), ranks=st.sampled_from([2, 4, 8]))
def test_ranks_share_the_projections_and_attention_exactly(shape: PlainShape, step: Step, ranks: int) -> None:
    shape = replace(shape, num_kv_heads=8, vocab_size=8 * shape.vocab_size)
    work = (GEMM, Attention)
    whole = [operator for operator in lower(shape, BF16, step) if isinstance(operator, work)]
    share = [operator for operator in lower(shape, BF16, step, ranks) if isinstance(operator, work)]
    assert ranks * total_flops(share) == total_flops(whole)
    assert [o.name for o in share] == [o.name for o in whole]


def test_tensor_parallel_exchanges_twice_a_layer() -> None:
    step = Step((SequenceStep(5, 5),), logit_rows=1)
    collectives = [o for o in lower(PlainShape(), BF16, step, 2) if isinstance(o, Collective)]
    assert [(o.name, o.count, o.payload_bytes) for o in collectives] == [
        ("embedding_all_reduce", 1, 2 * 5 * 64),
        ("attention_all_reduce", 3, 2 * 5 * 64),
        ("mlp_all_reduce", 3, 2 * 5 * 64),
        ("logits_all_gather", 1, 2 * 1000),
    ]


def test_more_ranks_than_kv_heads_copy_them() -> None:
    step = Step((SequenceStep(1, 9),), logit_rows=1)
    qkv = only(lower(PlainShape(num_kv_heads=2), BF16, step, 8), "qkv_proj")
    assert isinstance(qkv, GEMM)
    assert qkv.n == (1 + 2 * 1) * 16


@pytest.mark.parametrize(
    ("changes", "ranks", "named"),
    [
        ({}, 0, "tensor_parallel"),
        ({}, 3, "num_heads"),
        ({"num_kv_heads": 3, "num_heads": 6}, 2, "num_kv_heads"),
        ({"intermediate_size": 81}, 2, "intermediate_size"),
        ({"hidden_act": "relu7"}, 1, "relu7"),
    ],
)
def test_impossible_shapes_are_named(changes: dict, ranks: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        lower(PlainShape(**changes), BF16, Step((SequenceStep(1, 1),), logit_rows=1), ranks)


@given(step=steps())
def test_quantizing_shrinks_traffic_and_not_arithmetic(step: Step) -> None:
    plain, quantized = (lower(LLAMA_3_8B, Recipe.named(name), step) for name in ("fp16", "w4a8kv4-g128"))
    assert total_flops(plain) == total_flops(quantized)
    assert total_minimum_bytes(quantized) < total_minimum_bytes(plain)


def test_a_quantized_head_reads_what_the_other_projections_read() -> None:
    recipe = replace(Recipe.named("w4a8kv4-g128", "bf16"), lm_head=Recipe.named("w8a8kv4").weight)
    operators = lower(PlainShape(), recipe, Step((SequenceStep(1, 1),), logit_rows=1))
    [head] = [each for each in operators if isinstance(each, GEMM) and each.name == "lm_head"]
    assert (head.weight.number, head.input, head.output.number) == ("int8", recipe.activation, "bf16")


@dataclass(frozen=True)
class PlainExperts:
    count: int = 8
    top_k: int = 2
    inner: int = 48
    shared_inner: int = 0
    dense_layers: int = 0


@dataclass(frozen=True)
class PlainLatents:
    query_rank: int = 24
    kv_rank: int = 32
    rope_dim: int = 8
    nope_dim: int = 16
    value_dim: int = 12


def test_ranks_add_up_squares_of_norms_over_all_heads() -> None:
    step = Step((SequenceStep(7, 9),), logit_rows=1)
    plain, joint = (PlainShape(qk_norm=True, joint_qk_norm=each) for each in (False, True))
    assert lower(joint, BF16, step) == lower(plain, BF16, step)
    [added] = [each for each in lower(joint, BF16, step, 2) if each not in lower(plain, BF16, step, 2)]
    assert isinstance(added, Collective)
    assert (added.count, added.payload_bytes, added.ranks) == (3, 7 * 2 * 4, 2)


def test_experts_take_the_place_of_the_mlp() -> None:
    shape = PlainShape(experts=PlainExperts())
    step = Step((SequenceStep(5, 9),), logit_rows=1)
    dense, sparse = (lower(each, BF16, step) for each in (PlainShape(), shape))
    gone = {"gate_up_proj", "activation", "down_proj"}
    names = [operator.name for operator in sparse]
    assert [each for each in names if each not in ("router", "experts")] == [
        operator.name for operator in dense if operator.name not in gone
    ]
    router, experts = only(sparse, "router"), only(sparse, "experts")
    assert isinstance(router, GEMM)
    assert (router.count, router.m, router.n, router.k) == (3, 5, 8, 64)
    assert isinstance(experts, ExpertMLP)
    assert (experts.count, experts.flops) == (3, 2 * 3 * 64 * 48 * 5 * 2)


@given(ranks=st.sampled_from([1, 2, 4]), expert_ranks=st.sampled_from([1, 2, 4]), tokens=st.integers(1, 200))
def test_ranks_divide_weights_and_work_of_experts(ranks: int, expert_ranks: int, tokens: int) -> None:
    shape, step = PlainShape(experts=PlainExperts()), Step((SequenceStep(tokens, tokens),), logit_rows=0)
    if ranks % expert_ranks:
        with pytest.raises(ValueError, match="expert_parallel must divide"):
            lower(shape, BF16, step, ranks, expert_ranks)
        return
    one, part = (only(lower(shape, BF16, step, *each), "experts") for each in ((1, 1), (ranks, expert_ranks)))
    assert isinstance(one, ExpertMLP)
    assert isinstance(part, ExpertMLP)
    assert part.flops * ranks == one.flops
    assert part.stored_weight_bytes * ranks == one.stored_weight_bytes
    assert part.weight_bytes <= part.stored_weight_bytes


@pytest.mark.parametrize(
    ("experts", "ranks", "message"),
    [
        (PlainExperts(count=6), (4, 4), "experts \\(6\\) does not divide"),
        (PlainExperts(inner=46), (4, 1), "inner size of experts \\(46\\) does not divide"),
        (PlainExperts(), (4, 0), "expert_parallel must divide the 4 ranks, got 0"),
    ],
)
def test_experts_that_do_not_divide_are_refused(
    experts: PlainExperts, ranks: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        lower(PlainShape(experts=experts), BF16, Step((SequenceStep(1, 1),), 1), *ranks)


def test_dense_layers_come_before_experts_and_all_tokens_share_one() -> None:
    experts = PlainExperts(shared_inner=24, dense_layers=1)
    operators = lower(PlainShape(experts=experts), BF16, Step((SequenceStep(5, 9),), logit_rows=1))
    shape = {o.name: (o.count, o.n, o.k) for o in operators if isinstance(o, GEMM) and "proj" in o.name}
    assert shape["gate_up_proj"] == (1, 2 * 160, 64)
    assert shape["shared_gate_up_proj"] == (2, 2 * 24, 64)
    assert shape["shared_down_proj"] == (2, 64, 24)
    assert only(operators, "experts").count == only(operators, "router").count == 2
    assert only(operators, "pre_mlp_norm").count == 3


def test_latents_are_cached_and_projected() -> None:
    shape = PlainShape(latent=PlainLatents())
    step = Step((SequenceStep(1, 30), SequenceStep(6, 10)), logit_rows=1)
    operators = lower(shape, BF16, step, tensor_parallel=2)
    proj = {o.name: (o.m, o.n, o.k) for o in operators if isinstance(o, GEMM) and "proj" in o.name}
    assert proj["latent_proj"] == (7, 24 + 32 + 8, 64)
    assert proj["q_proj"] == (7, 4 * 24, 24)
    assert proj["kv_proj"] == (7, 4 * 28, 32)
    assert proj["o_proj"] == (7, 64, 4 * 12)
    decode, prefill = (o for o in operators if isinstance(o, Attention))
    assert (decode.heads, decode.kv_heads, decode.head_dim, decode.value_dim) == (4, 1, 40, 32)
    assert (prefill.heads, prefill.kv_heads, prefill.head_dim, prefill.value_dim) == (4, 4, 24, 12)
    # Every rank holds the latents of all heads.
    assert decode.kv_read_bytes == 2 * 29 * 40
    assert prefill.kv_write_bytes == 2 * 6 * 40
    assert decode.causal_flops == 2 * 4 * (40 + 32) * 30
    plain = lower(PlainShape(latent=PlainLatents(query_rank=0)), BF16, step, tensor_parallel=2)
    assert only(plain, "latent_proj").n == 4 * 24 + 32 + 8  # type: ignore[attr-defined]
    assert "q_proj" not in {operator.name for operator in plain}


@given(step=steps(), recipe=st.sampled_from(["bf16", "w4a8kv4-g128"]), query_rank=st.sampled_from([0, 24]))
def test_operators_of_experts_and_latents_cost_something(step: Step, recipe: str, query_rank: int) -> None:
    shape = PlainShape(experts=PlainExperts(dense_layers=2), latent=PlainLatents(query_rank=query_rank))
    for operator in lower(shape, Recipe.named(recipe), step, 2, 2):
        assert operator.minimum_bytes > 0, operator
        assert operator.flops > 0 or operator.name.startswith("embedding") or "all_" in operator.name, (
            operator
        )
