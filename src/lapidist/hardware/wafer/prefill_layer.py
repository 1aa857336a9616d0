"""A decoder layer in prefill, described step by step (WaferLLM section 4.2).

Activations ``B L_y E_x``: tokens over rows, channels over columns. Nine products (Q, K, V, QK^T, SV, output, gate, up,
down) run as MeshGEMM or MeshGEMM-T; an operand is aligned once and used by all products that read it. Attention runs
in groups of columns (:mod:`head_groups`), for which routers are programmed anew. V is skewed along y on the mesh, as
its product with the scores needs it. Norms of queries and keys (Qwen3) are summed in the groups too.
"""

from dataclasses import dataclass
from math import lcm

from lapidist.hardware.wafer.communications import Communication, ReduceToRing, Reduction, Shift
from lapidist.hardware.wafer.decoder_variant import LLAMA, DecoderVariant, channels_of
from lapidist.hardware.wafer.description import Description, Tile
from lapidist.hardware.wafer.gemm_algorithms import align, compute_shift
from lapidist.hardware.wafer.gemv_algorithms import pipeline_allreduce
from lapidist.hardware.wafer.head_groups import HeadGroups, LayerShape
from lapidist.hardware.wafer.line import Line
from lapidist.hardware.wafer.steps import Multiply, Pointwise, Reconfigure, Repeat, Step, Together


@dataclass(frozen=True)
class PrefillPlan:
    """Sizes of tiles when ``tokens`` of one sequence go through a layer on ``rows`` x ``cols`` cores.

    ``slots`` squared tiles on the whole mesh, ``group_slots`` squared ones in each group of attention heads; sides are
    rounded up to whole tiles.

    Attributes
    ----------
    variant : where the model differs from Llama.
    """

    shape: LayerShape
    rows: int
    cols: int
    tokens: int
    variant: DecoderVariant = LLAMA

    def __post_init__(self) -> None:
        if min(self.rows, self.cols, self.tokens) < 1:
            raise ValueError(
                f"prefill needs tokens and cores, got {self.tokens} tokens on {self.rows} x {self.cols} cores"
            )

    @property
    def heads(self) -> HeadGroups:
        return HeadGroups.of(self.shape, self.cols, self.variant.rotary_dim)

    @property
    def slots(self) -> int:
        return lcm(self.rows, self.cols)

    @property
    def slots_per_col(self) -> int:
        return self.slots // self.cols

    @property
    def slots_per_core(self) -> int:
        return self.slots_per_col * (self.slots // self.rows)

    @property
    def group_slots(self) -> int:
        return lcm(self.rows, self.heads.cores)

    @property
    def group_slots_per_col(self) -> int:
        return self.group_slots // self.heads.cores

    @property
    def value_slots_per_col(self) -> int:
        """Slots of a column in a group that hold dimensions of values; the others only pass scores on."""
        return min(self.group_slots_per_col, self.heads.values())

    @property
    def slot_tokens(self) -> int:
        return -(-self.tokens // self.slots)

    @property
    def group_slot_tokens(self) -> int:
        """Tokens in a slot of a group; the slots of a row together hold the same tokens as those of the whole mesh."""
        return self.slot_tokens * self.slots // self.group_slots

    @property
    def row_tokens(self) -> int:
        """Tokens of a row of cores."""
        return self.slot_tokens * self.slots // self.rows

    @property
    def hidden(self) -> int:
        return -(-self.shape.hidden_size // self.slots)

    @property
    def intermediate(self) -> int:
        return -(-self.shape.intermediate_size // self.slots)

    def slot_width(self, per_col: int) -> int:
        """Channels of a slot when a column has ``per_col`` of them."""
        return -(-per_col // self.slots_per_col)

    @property
    def queries(self) -> int:
        heads = self.heads
        return self.slot_width(heads.kv_heads * heads.queries_per_kv * heads.rotated)

    @property
    def keys(self) -> int:
        return self.slot_width(self.heads.kv_heads * self.heads.rotated)

    @property
    def values(self) -> int:
        return self.slot_width(self.value_slots_per_col * self.heads.kv_heads * self.head_values)

    @property
    def head_values(self) -> int:
        """Dimensions of a value head in a slot of a group."""
        return self.heads.values(self.value_slots_per_col)

    @property
    def attended(self) -> int:
        heads = self.heads
        per_col = self.value_slots_per_col * heads.kv_heads * heads.queries_per_kv * self.head_values
        return self.slot_width(per_col)


def prefill_layer(plan: PrefillPlan, layers: int = 1, element_bytes: int = 2) -> Description:
    """One layer; memory is that of a region that holds the weights and KV caches of ``layers``."""
    return Description(
        "prefill layer",
        plan.rows,
        plan.cols,
        _tiles(plan, layers),
        (
            *_normalize(plan, "x", "norm1", "a"),
            *_projections(plan),
            Reconfigure(),
            *_split_heads(plan),
            *_scores(plan),
            *_attend(plan),
            Reconfigure(),
            *_output(plan),
            *_normalize(plan, "x", "norm2", "a"),
            *_feed_forward(plan),
        ),
        element_bytes,
        {"slots": plan.slots, "group_slots": plan.group_slots, "groups": plan.heads.groups},
    )


def _across(plan: PrefillPlan) -> Line:
    return Line("x", plan.cols, plan.slots)


def _down(plan: PrefillPlan) -> Line:
    return Line("y", plan.rows, plan.slots)


def _group_across(plan: PrefillPlan) -> Line:
    heads = plan.heads
    return Line("x", heads.cores, plan.group_slots, heads.groups, plan.value_slots_per_col)


def _group_down(plan: PrefillPlan) -> Line:
    return Line("y", plan.rows, plan.group_slots)


def _product(plan: PrefillPlan, a: str, weight: str, out: str, k: int, n: int) -> Repeat:
    return compute_shift((a, weight, out), (plan.slot_tokens, k, n), _across(plan), _down(plan))


def _align(plan: PrefillPlan, tile: str, width: int) -> Repeat:
    return align(tile, plan.slot_tokens * width, _across(plan), _down(plan))


def _local(
    plan: PrefillPlan, operation: str, inputs: str, outputs: str, width: int, function: str
) -> Pointwise:
    """Work on all tiles of a core, ``width`` channels wide; names are separated by commas."""
    elements = plan.slots_per_core * plan.slot_tokens * width
    return Pointwise(operation, tuple(inputs.split(",")), tuple(outputs.split(",")), elements, function)


def _normalize(plan: PrefillPlan, source: str, norm: str, target: str) -> tuple[Step, ...]:
    """RMSNorm: squares are summed along x."""
    line = Line("x", plan.cols)
    return (
        _local(plan, "square_sum", source, "sums", plan.hidden, "square sums"),
        *pipeline_allreduce("sums", plan.row_tokens, line, root="middle"),
        _local(plan, "normalize", f"{source},sums,{norm}", target, plan.hidden, "normalize"),
    )


def _projections(plan: PrefillPlan) -> tuple[Step, ...]:
    return (
        _align(plan, "a", plan.hidden),
        _product(plan, "a", "wq", "q", plan.hidden, plan.queries),
        _product(plan, "a", "wk", "k", plan.hidden, plan.keys),
        _product(plan, "a", "wv", "v", plan.hidden, plan.values),
        *_bias(plan, "q", "bq", plan.queries, plan.variant.qkv_bias),
        *_bias(plan, "k", "bk", plan.keys, plan.variant.qkv_bias),
        *_bias(plan, "v", "bv", plan.values, plan.variant.qkv_bias),
    )


def _bias(plan: PrefillPlan, tile: str, bias: str, width: int, present: bool) -> tuple[Step, ...]:
    return (_local(plan, "add", f"{tile},{bias}", tile, width, "add"),) if present else ()


def _block_end(plan: PrefillPlan, out: str, norm: str) -> tuple[Step, ...]:
    """Gemma-2's norm behind a block, and the residual sum."""
    return (
        *(_normalize(plan, out, norm, out) if plan.variant.sandwich_norms else ()),
        _local(plan, "add", f"x,{out}", "x", plan.hidden, "add"),
    )


def _split_heads(plan: PrefillPlan) -> tuple[Step, ...]:
    """Queries, keys and values by head; the former two normalized over each head if need be, and rotated."""
    return (
        *(_normalize_heads(plan) if plan.variant.qk_norm else ()),
        _local(plan, "rope", "q", "queries", plan.queries, "query heads"),
        _local(plan, "rope", "k", "keys", plan.keys, "key heads"),
        _local(plan, "copy", "v", "values", plan.values, "value heads"),
    )


def _normalize_heads(plan: PrefillPlan) -> tuple[Step, ...]:
    return (
        _local(plan, "square_sum", "q,k", "head sums", plan.queries + plan.keys, "head square sums"),
        *_group_allreduce(plan, "head sums", _normalized_rows(plan), "sum"),
        _local(plan, "normalize", "q,head sums,q norm", "q", plan.queries, "normalize queries"),
        _local(plan, "normalize", "k,head sums,k norm", "k", plan.keys, "normalize keys"),
    )


def _normalized_rows(plan: PrefillPlan) -> int:
    """Query and key heads of a core's tokens."""
    return plan.heads.kv_heads * (plan.heads.queries_per_kv + 1) * plan.row_tokens


def _scores(plan: PrefillPlan) -> tuple[Step, ...]:
    """QK^T by MeshGEMM-T in each group, causal mask, softmax over the keys, which lie along x."""
    heads, tokens = plan.heads, plan.group_slot_tokens
    slots_down = plan.group_slots // plan.rows
    m = heads.queries_per_kv * tokens
    products = heads.kv_heads * slots_down
    step = Together(
        (
            Multiply(
                "queries", "keys", "partial", m, heads.rotated, tokens, products,
                transpose_b=True, accumulate=False,
            ),
            ReduceToRing("partial", "scores", products * m * tokens, _group_across(plan), _group_down(plan)),
            Shift("keys", heads.kv_heads * tokens * heads.rotated, _group_down(plan)),
        )
    )  # fmt: skip
    elements = _score_elements(plan)
    softcap = (Pointwise("softcap", ("scores",), ("scores",), elements, "cap scores"),)
    return (
        Repeat(plan.group_slots, (step,)),
        *(softcap if plan.variant.attention_softcap else ()),
        Pointwise("mask", ("scores",), ("scores", "maxima"), elements, "mask"),
        *_group_allreduce(plan, "maxima", _score_rows(plan), "max"),
        Pointwise("softmax", ("scores", "maxima"), ("scores", "sums"), elements, "exponentials"),
        *_group_allreduce(plan, "sums", _score_rows(plan), "sum"),
        Pointwise("scale", ("scores", "sums"), ("scores",), elements, "divide"),
    )


def _score_rows(plan: PrefillPlan) -> int:
    """Query heads of a core's tokens."""
    return plan.heads.kv_heads * plan.heads.queries_per_kv * plan.row_tokens


def _score_elements(plan: PrefillPlan) -> int:
    return _score_rows(plan) * plan.group_slots_per_col * plan.group_slot_tokens


def _group_allreduce(
    plan: PrefillPlan, tile: str, elements: int, operation: Reduction
) -> tuple[Communication, ...]:
    line = Line("x", plan.heads.cores, groups=plan.heads.groups)
    return pipeline_allreduce(tile, elements, line, operation, "middle")


def _attend(plan: PrefillPlan) -> tuple[Step, ...]:
    """SV by MeshGEMM in each group; both factors are skewed on the mesh."""
    heads, tokens = plan.heads, plan.group_slot_tokens
    across, down = _group_across(plan), _group_down(plan)
    m = heads.queries_per_kv * tokens
    return (
        _local(plan, "copy", "values", "moving values", plan.values, "copy"),
        align("scores", heads.kv_heads * m * tokens, across, down),
        align("moving values", heads.kv_heads * tokens * plan.head_values, down, across),
        compute_shift(
            ("scores", "moving values", "attended"),
            (m, tokens, plan.head_values),
            across,
            down,
            batch=heads.kv_heads,
        ),
    )


def _output(plan: PrefillPlan) -> tuple[Step, ...]:
    return (
        _local(plan, "copy", "attended", "a", plan.attended, "merge heads"),
        _align(plan, "a", plan.attended),
        _product(plan, "a", "wo", "attention out", plan.attended, plan.hidden),
        *_bias(plan, "attention out", "bo", plan.hidden, plan.variant.o_bias),
        *_block_end(plan, "attention out", "post norm1"),
    )


def _feed_forward(plan: PrefillPlan) -> tuple[Step, ...]:
    return (
        _align(plan, "a", plan.hidden),
        _product(plan, "a", "wgate", "gate", plan.hidden, plan.intermediate),
        _product(plan, "a", "wup", "up", plan.hidden, plan.intermediate),
        *_bias(plan, "gate", "bgate", plan.intermediate, plan.variant.mlp_bias),
        *_bias(plan, "up", "bup", plan.intermediate, plan.variant.mlp_bias),
        _local(plan, plan.variant.activation, "gate,up", "a", plan.intermediate, "activation"),
        _align(plan, "a", plan.intermediate),
        _product(plan, "a", "wdown", "mlp out", plan.intermediate, plan.hidden),
        *_bias(plan, "mlp out", "bdown", plan.hidden, plan.variant.mlp_bias),
        *_block_end(plan, "mlp out", "post norm2"),
    )


def _tiles(plan: PrefillPlan, layers: int) -> dict[str, Tile]:
    slots, heads = plan.slots_per_core, plan.heads
    hidden, wide = plan.hidden, plan.intermediate
    tokens = slots * plan.slot_tokens
    row_heads = _score_rows(plan)
    group_values = plan.value_slots_per_col * heads.kv_heads * plan.head_values
    weights = {
        "wq": hidden * plan.queries,
        "wk": hidden * plan.keys,
        "wv": hidden * plan.values,
        "wo": plan.attended * hidden,
        "wgate": hidden * wide,
        "wup": hidden * wide,
        "wdown": wide * hidden,
    }
    along = channels_of(plan)
    vectors = plan.variant.vectors()
    weights |= {name: along[channels] for name, channels in vectors.items() if channels != "head"}
    head_norms = [name for name, channels in vectors.items() if channels == "head"]
    work = {
        "sums": row_heads,
        "maxima": row_heads,
        "a": tokens * max(hidden, wide, plan.attended),
        "head sums": _normalized_rows(plan) if head_norms else 0,
        "q": tokens * plan.queries,
        "k": tokens * plan.keys,
        "v": tokens * plan.values,
        "queries": row_heads * heads.rotated,
        "partial": row_heads * plan.group_slot_tokens,
        "scores": _score_elements(plan),
        "moving values": plan.row_tokens * group_values,
        "attended": plan.row_tokens * group_values * heads.queries_per_kv,
        "attention out": tokens * hidden,
        "gate": tokens * wide,
        "up": tokens * wide,
        "mlp out": tokens * hidden,
    }
    cache = {
        "keys": plan.row_tokens * heads.kv_heads * heads.rotated,
        "values": plan.row_tokens * group_values,
    }
    earlier_caches = (layers - 1) * sum(cache.values())
    return {
        "x": Tile("x", tokens * hidden, "resident"),
        "caches of other layers": Tile("caches of other layers", earlier_caches, "resident"),
        **{name: Tile(name, layers * slots * size, "resident") for name, size in weights.items()},
        **{name: Tile(name, layers * heads.rotated, "resident") for name in head_norms},
        **{name: Tile(name, size, "output") for name, size in cache.items()},
        **{name: Tile(name, size) for name, size in work.items()},
    }
