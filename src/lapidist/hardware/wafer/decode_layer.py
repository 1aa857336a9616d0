"""A decoder layer in decode, described step by step (WaferLLM section 4.3).

The activation of one token is split over y and alike in all columns. Products alternate between contracting y and x,
so nothing is ever transposed: ten all-reduces a layer (two norms, QKV, scores, maximum and sum of softmax, SV, output,
gate and up, down) and one wave that keeps the KV cache even. Norms of queries and keys (Qwen3) are one more all-reduce,
norms behind the blocks (Gemma-2) two.
"""

from dataclasses import dataclass
from typing import Literal

from lapidist.hardware.wafer.communications import Communication, Reduction, Wave
from lapidist.hardware.wafer.decoder_variant import FUSED_BY_DECODE, LLAMA, DecoderVariant, channels_of
from lapidist.hardware.wafer.description import Description, Tile
from lapidist.hardware.wafer.gemv_algorithms import k_tree_allreduce
from lapidist.hardware.wafer.head_groups import HeadGroups, LayerShape
from lapidist.hardware.wafer.line import Axis, Line
from lapidist.hardware.wafer.reduction_tree import tree_group_sizes
from lapidist.hardware.wafer.steps import Multiply, Pointwise, Step

CachePolicy = Literal["shift", "concat"]
CACHE_POLICIES: tuple[CachePolicy, ...] = ("shift", "concat")


@dataclass(frozen=True)
class DecodePlan:
    """Sizes when one new token a sequence goes through a layer on ``rows`` x ``cols`` cores.

    Attributes
    ----------
    row_capacity : tokens of each sequence that a row of cores has room for.
    batch : sequences, each of its own length.
    phases : of the K-tree all-reduces.
    policy : of the KV cache: ``shift`` keeps rows even, ``concat`` puts all new tokens on the last row.
    variant : where the model differs from Llama.
    """

    shape: LayerShape
    rows: int
    cols: int
    row_capacity: int
    batch: int = 1
    phases: int = 2
    policy: CachePolicy = "shift"
    variant: DecoderVariant = LLAMA

    def __post_init__(self) -> None:
        if min(self.rows, self.cols, self.row_capacity, self.batch) < 1:
            raise ValueError(
                f"decode needs sequences, cores and room in the cache, got batch {self.batch}, "
                f"{self.rows} x {self.cols} cores, {self.row_capacity} tokens a row"
            )

    @property
    def heads(self) -> HeadGroups:
        return HeadGroups.of(self.shape, self.cols, self.variant.rotary_dim)

    @property
    def hidden(self) -> int:
        return -(-self.shape.hidden_size // self.rows)

    @property
    def intermediate(self) -> int:
        return -(-self.shape.intermediate_size // self.cols)

    @property
    def queries(self) -> int:
        return self.heads.kv_heads * self.heads.queries_per_kv * self.heads.rotated

    @property
    def keys(self) -> int:
        return self.heads.kv_heads * self.heads.rotated

    @property
    def values(self) -> int:
        return self.heads.kv_heads * self.heads.values()

    @property
    def projected(self) -> int:
        """Channels of queries, keys and values on a column."""
        return self.queries + self.keys + self.values

    @property
    def attended(self) -> int:
        return self.heads.queries_per_kv * self.values

    @property
    def normalized_heads(self) -> int:
        """Query and key heads of a column."""
        return self.heads.kv_heads * (self.heads.queries_per_kv + 1)

    @property
    def cache_elements(self) -> int:
        """Keys and values of a layer on one core when its row is full."""
        return self.batch * self.row_capacity * (self.keys + self.values)


def decode_layer(plan: DecodePlan, layers: int = 1, element_bytes: int = 2) -> Description:
    """One layer; memory is that of a region that holds the weights and KV caches of ``layers``."""
    return Description(
        "decode layer",
        plan.rows,
        plan.cols,
        _tiles(plan, layers),
        (
            *_normalize(plan, "x", "norm1", "a"),
            *_product(plan, "a", "wqkv", "qkv", "y", plan.hidden, plan.projected),
            *_bias(plan, "qkv", "bqkv", plan.projected, plan.variant.qkv_bias),
            *_split_heads(plan),
            *_append(plan),
            *decode_attention(plan),
            *_product(plan, "a", "wo", "attention out", "x", plan.attended, plan.hidden),
            *_bias(plan, "attention out", "bo", plan.hidden, plan.variant.o_bias),
            *_block_end(plan, "attention out", "post norm1"),
            *_normalize(plan, "x", "norm2", "a"),
            *_product(plan, "a", "wgateup", "gateup", "y", plan.hidden, 2 * plan.intermediate),
            *_bias(plan, "gateup", "bgateup", 2 * plan.intermediate, plan.variant.mlp_bias),
            Pointwise(
                plan.variant.activation, ("gateup",), ("a",), plan.batch * plan.intermediate, "activation"
            ),
            *_product(plan, "a", "wdown", "mlp out", "x", plan.intermediate, plan.hidden),
            *_bias(plan, "mlp out", "bdown", plan.hidden, plan.variant.mlp_bias),
            *_block_end(plan, "mlp out", "post norm2"),
        ),
        element_bytes,
        {"groups": plan.heads.groups},
    )


def decode_head(plan: DecodePlan, vocab_size: int, element_bytes: int = 2) -> Description:
    """Final norm and output head: logits split over x."""
    vocab = -(-vocab_size // plan.cols)
    softcap = (Pointwise("softcap", ("logits",), ("logits",), plan.batch * vocab, "cap logits"),)
    sizes = {"sums": plan.batch, "a": plan.batch * plan.hidden, "logits": plan.batch * vocab}
    return Description(
        "decode head",
        plan.rows,
        plan.cols,
        {
            "x": Tile("x", plan.batch * plan.hidden, "resident"),
            "norm": Tile("norm", plan.hidden, "resident"),
            "whead": Tile("whead", plan.hidden * vocab, "resident"),
            **{name: Tile(name, size) for name, size in sizes.items()},
        },
        (
            *_normalize(plan, "x", "norm", "a"),
            *_product(plan, "a", "whead", "logits", "y", plan.hidden, vocab),
            *(softcap if plan.variant.final_softcap else ()),
        ),
        element_bytes,
    )


def _allreduce(
    plan: DecodePlan, tile: str, elements: int, axis: Axis, operation: Reduction = "sum"
) -> tuple[Communication, ...]:
    cores = plan.rows if axis == "y" else plan.cols
    return k_tree_allreduce(
        tile, elements, Line(axis, cores), tree_group_sizes(cores, plan.phases), operation
    )


def _normalize(plan: DecodePlan, source: str, norm: str, target: str) -> tuple[Step, ...]:
    elements = plan.batch * plan.hidden
    return (
        Pointwise("square_sum", (source,), ("sums",), elements, "square sums"),
        *_allreduce(plan, "sums", plan.batch, "y"),
        Pointwise("normalize", (source, "sums", norm), (target,), elements, "normalize"),
    )


def _product(
    plan: DecodePlan, a: str, weight: str, out: str, contract: Axis, k: int, n: int
) -> tuple[Step, ...]:
    multiply = Multiply(a, weight, out, plan.batch, k, n, accumulate=False)
    return (multiply, *_allreduce(plan, out, plan.batch * n, contract))


def _bias(plan: DecodePlan, tile: str, bias: str, width: int, present: bool) -> tuple[Step, ...]:
    return (Pointwise("add", (tile, bias), (tile,), plan.batch * width, "add"),) if present else ()


def _block_end(plan: DecodePlan, out: str, norm: str) -> tuple[Step, ...]:
    """Gemma-2's norm behind a block, and the residual sum."""
    return (
        *(_normalize(plan, out, norm, out) if plan.variant.sandwich_norms else ()),
        Pointwise("add", ("x", out), ("x",), plan.batch * plan.hidden, "add"),
    )


def _split_heads(plan: DecodePlan) -> tuple[Step, ...]:
    """Queries, keys and values by head; the former two normalized over each head if need be, and rotated."""
    elements = plan.batch * (plan.queries + plan.keys)
    heads = ("query", "new key", "new value")
    if not plan.variant.qk_norm:
        return (Pointwise("rope", ("qkv",), heads, elements, "split heads"),)
    return (
        Pointwise("square_sum", ("qkv",), ("head sums",), elements, "head square sums"),
        *_group_allreduce(plan, "head sums", plan.batch * plan.normalized_heads),
        Pointwise(
            "normalize", ("qkv", "head sums", "q norm", "k norm"), ("qkv",), elements, "normalize heads"
        ),
        Pointwise("rope", ("qkv",), heads, elements, "split heads"),
    )


def _append(plan: DecodePlan) -> tuple[Step, ...]:
    """Every row knows the new key and value; the last row keeps them, after the wave has made room."""
    elements = plan.batch * (plan.keys + plan.values)
    append = Pointwise(
        "copy",
        ("keys", "values", "occupancy", "arriving", "new key", "new value"),
        ("keys", "values", "occupancy"),
        elements,
        "append",
    )
    if plan.policy == "concat":
        return (append,)
    return (Wave(("keys", "values"), "occupancy", elements, Line("y", plan.rows), "arriving"), append)


def _group_allreduce(plan: DecodePlan, tile: str, elements: int) -> tuple[Communication, ...]:
    """A sum over the columns of each group of heads."""
    cores = plan.heads.cores
    line = Line("x", cores, groups=plan.heads.groups)
    return k_tree_allreduce(tile, elements, line, tree_group_sizes(cores, plan.phases))


def decode_attention(plan: DecodePlan) -> tuple[Step, ...]:
    """Scores are summed along x in each group of columns, the softmax and its product with V along y."""
    heads, tokens = plan.heads, plan.row_capacity
    products = plan.batch * heads.kv_heads
    rows = products * heads.queries_per_kv
    softcap = (Pointwise("softcap", ("scores",), ("scores",), rows * tokens, "cap scores"),)
    attended = rows * heads.values()
    return (
        Multiply(
            "query", "keys", "scores", heads.queries_per_kv, heads.rotated, tokens, products,
            transpose_b=True, accumulate=False,
        ),
        *_group_allreduce(plan, "scores", rows * tokens),
        *(softcap if plan.variant.attention_softcap else ()),
        Pointwise("mask", ("scores", "occupancy"), ("scores", "maxima"), rows * tokens, "mask"),
        *_allreduce(plan, "maxima", rows, "y", "max"),
        Pointwise("softmax", ("scores", "maxima"), ("scores", "sums"), rows * tokens, "exponentials"),
        *_allreduce(plan, "sums", rows, "y"),
        Pointwise("scale", ("scores", "sums"), ("scores",), rows * tokens, "divide"),
        Multiply(
            "scores", "values", "attended", heads.queries_per_kv, tokens, heads.values(), products,
            accumulate=False,
        ),
        *_allreduce(plan, "attended", attended, "y"),
        Pointwise("copy", ("attended",), ("a",), attended, "merge heads"),
    )  # fmt: skip


def _tiles(plan: DecodePlan, layers: int) -> dict[str, Tile]:
    batch, hidden, wide = plan.batch, plan.hidden, plan.intermediate
    rows = batch * plan.heads.kv_heads * plan.heads.queries_per_kv
    resident = {
        "wqkv": hidden * plan.projected,
        "wo": plan.attended * hidden,
        "wgateup": 2 * hidden * wide,
        "wdown": wide * hidden,
        "keys": batch * plan.row_capacity * plan.keys,
        "values": batch * plan.row_capacity * plan.values,
    }
    along = channels_of(plan) | {"head": plan.heads.rotated}
    for name, channels in plan.variant.vectors().items():
        fused = FUSED_BY_DECODE.get(name, name)
        resident[fused] = resident.get(fused, 0) + along[channels]
    work = {
        "sums": rows,
        "maxima": rows,
        "a": batch * max(hidden, plan.attended, wide),
        "qkv": batch * plan.projected,
        "head sums": batch * plan.normalized_heads if plan.variant.qk_norm else 0,
        "query": batch * plan.queries,
        "new key": batch * plan.keys,
        "new value": batch * plan.values,
        "scores": rows * plan.row_capacity,
        "attended": batch * plan.attended,
        "attention out": batch * hidden,
        "gateup": 2 * batch * wide,
        "mlp out": batch * hidden,
    }
    return {
        "x": Tile("x", batch * hidden, "resident"),
        "occupancy": Tile("occupancy", batch, "resident"),
        "arriving": Tile("arriving", batch, "resident"),
        **{name: Tile(name, layers * size, "resident") for name, size in resident.items()},
        **{name: Tile(name, size) for name, size in work.items()},
    }
