import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.workload.operators import (
    GEMM,
    Attention,
    Collective,
    ElementWise,
    Embedding,
    ExpertMLP,
    Normalization,
    total_flops,
    total_minimum_bytes,
)
from lapidist.workload.recipe import Recipe
from lapidist.workload.tensor_format import TensorFormat

BF16 = TensorFormat("bf16")


def attention(query_length: int, kv_length: int, window: int | None = None, **changes: object) -> Attention:
    fields: dict = {
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "hidden": BF16,
        "kv": BF16,
        "output": BF16,
    } | changes
    return Attention(name="a", query_length=query_length, kv_length=kv_length, window=window, **fields)


def test_gemm_counts_by_hand() -> None:
    gemm = GEMM(name="g", m=3, n=5, k=7, input=BF16, weight=BF16, output=BF16, bias=True)
    assert gemm.flops == 210
    assert gemm.weight_bytes == 2 * 35 + 2 * 5
    assert gemm.activation_bytes == 2 * (21 + 15)
    assert gemm.minimum_bytes == gemm.weight_bytes + gemm.activation_bytes
    assert gemm.kv_bytes == 0


def test_quantized_gemm_reads_codes_and_scales() -> None:
    recipe = Recipe.named("w4a8kv4-g128")
    gemm = GEMM(
        name="g", m=2, n=4096, k=4096, input=recipe.activation, weight=recipe.weight, output=recipe.hidden
    )
    assert gemm.weight_bytes == 4096 * (4096 // 2 + 32 * 2 + 2)
    assert gemm.activation_bytes == 2 * (4096 + 2) + 2 * 2 * 4096


def test_page_size_of_four_bit_kv() -> None:
    """QServe's K page of Llama-3-8B, 64 tokens of 8 heads in 34,816 bytes, with zero points of one byte for two."""
    assert Recipe.named("w4a8kv4").kv.byte_count(64 * 8, 128) == 34816 - 64 * 8


@given(
    query_length=st.integers(1, 70), past=st.integers(0, 70), window=st.one_of(st.none(), st.integers(1, 80))
)
def test_attention_counts_equal_a_count_of_the_mask(query_length: int, past: int, window: int | None) -> None:
    operator = attention(query_length, past + query_length, window)
    reach = window or 10**9
    rows = [
        {key for key in range(past + query_length) if position - reach < key <= position}
        for position in range(past, past + query_length)
    ]
    assert operator.visible_kv == len(set().union(*rows))
    assert operator.flops == 4 * 4 * 8 * query_length * operator.visible_kv
    assert operator.causal_flops == 4 * 4 * 8 * sum(len(row) for row in rows)


def test_attention_bytes_by_hand() -> None:
    operator = attention(query_length=1, kv_length=10)
    assert operator.kv_read_bytes == 9 * 2 * 2 * 8 * 2
    assert operator.kv_write_bytes == 2 * 2 * 8 * 2
    assert operator.activation_bytes == 2 * (8 * (4 + 2 + 2) + 8 * 4)
    four_bit = attention(1, 10, kv=Recipe.named("w4a8kv4").kv)
    assert four_bit.kv_read_bytes == 9 * 2 * 2 * (8 // 2 + 3)


def test_a_window_bounds_what_decode_reads() -> None:
    assert attention(1, 1000, window=64).kv_read_bytes == attention(1, 64).kv_read_bytes


def test_small_operators_by_hand() -> None:
    add = ElementWise(
        name="e", rows=2, columns=3, inputs=2, operations_per_element=1, input=BF16, output=BF16
    )
    assert (add.flops, add.minimum_bytes) == (6, 3 * 12)
    norm = Normalization(name="n", rows=2, columns=3, input=BF16, output=TensorFormat("int8"))
    assert (norm.flops, norm.weight_bytes, norm.activation_bytes) == (24, 6, 12 + 6)
    embedding = Embedding(name="t", tokens=2, columns=3, table=BF16)
    assert (embedding.flops, embedding.minimum_bytes) == (0, 24)


def test_collectives_by_hand() -> None:
    reduce = Collective(name="r", kind="all_reduce", payload_bytes=800, ranks=4)
    assert (reduce.wire_bytes, reduce.minimum_bytes) == (1200, 1600)
    gather = Collective(name="g", kind="all_gather", payload_bytes=800, ranks=4)
    assert (gather.wire_bytes, gather.minimum_bytes) == (600, 1000)


def test_totals_weigh_by_count() -> None:
    once = GEMM(name="g", m=3, n=5, k=7, input=BF16, weight=BF16, output=BF16)
    often = GEMM(name="g", count=9, m=3, n=5, k=7, input=BF16, weight=BF16, output=BF16)
    assert total_flops([once, often]) == 10 * once.flops
    assert total_minimum_bytes([once, often]) == 10 * once.minimum_bytes


@given(rows=st.integers(0, 9), columns=st.integers(1, 999), group=st.integers(1, 300))
def test_formats_round_rows_up_to_bytes(rows: int, columns: int, group: int) -> None:
    assert TensorFormat("int4").byte_count(rows, columns) == rows * ((columns + 1) // 2)
    grouped = TensorFormat("int4", group, group_overhead_bits=16)
    groups = len(range(0, columns, group))
    assert grouped.byte_count(rows, columns) == rows * ((columns + 1) // 2 + 2 * groups)


def test_recipes_by_name() -> None:
    assert Recipe.named("fp32").weight.bits == 32
    plain = Recipe.named("w16a16kv8", hidden="bf16")
    assert (plain.weight, plain.activation, plain.kv.number) == (BF16, BF16, "int8")
    per_channel = Recipe.named("w4a8kv4").weight
    assert per_channel.byte_count(1, 4096) == 2048 + 4


@pytest.mark.parametrize("name", ["", "int3", "w4", "w4a8kv4-g0", "w8a8kv8-g128", "W4A8KV4", "w4a4kv4"])
def test_unknown_recipes_say_what_is_known(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown recipe .* w4a8kv4-g128"):
        Recipe.named(name)


@pytest.mark.parametrize(
    "fields",
    [{"number": "int3"}, {"number": "int4", "group_size": 0}, {"number": "int4", "group_overhead_bits": 8}],
)
def test_impossible_formats_are_refused(fields: dict) -> None:
    with pytest.raises(ValueError):
        TensorFormat(**fields)


@given(tokens=st.integers(1, 500), top_k=st.integers(1, 8))
def test_experts_read_what_their_tokens_reach(tokens: int, top_k: int) -> None:
    fields = {"hidden": 64, "inner": 32, "top_k": top_k, "experts": 8, "input": BF16, "weight": BF16}
    each = ExpertMLP(name="e", tokens=tokens, output=BF16, **fields)  # type: ignore[arg-type]
    one_expert = 3 * 64 * 32 * 2
    assert each.stored_weight_bytes == 8 * one_expert
    assert top_k * one_expert <= each.weight_bytes <= each.stored_weight_bytes
    assert each.flops == 3 * 2 * 64 * 32 * tokens * top_k
    if tokens == 1:
        assert each.weight_bytes == top_k * one_expert
