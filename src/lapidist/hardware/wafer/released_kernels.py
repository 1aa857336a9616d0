"""A decoder layer as WaferLLM's released kernels run it, for comparison with what the paper measured.

The kernels (github.com/MeshInfra/WaferLLM, Apache-2.0) are faithful in time, not in what they compute: one attention
head as wide as the model, keys and values of full width whatever the model has, no causal mask, and SiLU over
as many elements as the hidden size has. Embedding, output head, sampling and hand-over between regions are not timed.
"""

from dataclasses import dataclass

from lapidist.hardware.wafer.communications import Communication
from lapidist.hardware.wafer.cost_terms import Program
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.gemm_algorithms import GEMMShape, mesh_gemm, mesh_gemm_transposed
from lapidist.hardware.wafer.gemv_algorithms import k_tree_allreduce, mesh_gemv, pipeline_allreduce, tree_of
from lapidist.hardware.wafer.line import Axis, Line
from lapidist.hardware.wafer.steps import Pointwise, Step


@dataclass(frozen=True)
class ReleasedLayer:
    """Sides that the kernels know: hidden size and width of the feed-forward block."""

    hidden: int
    intermediate: int

    def __post_init__(self) -> None:
        if min(self.hidden, self.intermediate) < 1:
            raise ValueError(f"sides of a layer are at least 1, got {self.hidden} and {self.intermediate}")


def released_prefill_layer(layer: ReleasedLayer, tokens: int, cores: int) -> Program:
    """Prefill of ``tokens`` on ``cores`` x ``cores``: 9 products, 4 of them on an operand aligned for another before.

    Per layer 9 P compute-shift steps, 2.5 P alignment shifts and 4 pipeline all-reduces of a scalar per row.
    """
    hidden, wide = layer.hidden, layer.intermediate
    rows, columns = -(-tokens // cores), -(-hidden // cores)
    elements = rows * columns

    def product(k: int, n: int, aligned: bool = False) -> Description:
        return mesh_gemm(GEMMShape(tokens, k, n), cores, cores, aligned=aligned)

    def reduced(*operations: tuple[str, int]) -> Description:
        line = Line("x", cores)
        return _local(cores, operations, pipeline_allreduce("sums", rows, line, root="middle"))

    return (
        (reduced(("square_sum", elements), ("normalize", elements)), 2),
        (product(hidden, hidden), 2),  # Q and W_O
        (product(hidden, hidden, aligned=True), 2),  # K and V find X as Q aligned it
        (_local(cores, (("rope", 2 * elements),)), 1),
        (mesh_gemm_transposed(GEMMShape(tokens, hidden, tokens), cores, cores), 1),
        (reduced(("scale", rows * rows)), 1),
        (reduced(("softmax", rows * rows)), 1),
        (product(tokens, hidden), 1),  # S V
        (product(hidden, wide), 1),
        (product(hidden, wide, aligned=True), 1),
        (_local(cores, (("silu", elements), ("multiply", elements), ("add", 2 * elements))), 1),
        (product(wide, hidden), 1),
    )


def released_decode_layer(layer: ReleasedLayer, context: int, cores: int, groups: int) -> Program:
    """Decode of one token with ``context`` tokens in the cache: 10 all-reduces, QKV and up/gate fused.

    ``groups`` of cores along a line in the first phase of the two-level tree.
    """
    hidden, wide = layer.hidden, layer.intermediate
    columns, tokens = -(-hidden // cores), -(-context // cores)
    tree = tree_of(cores, 2, groups)

    def product(k: int, n: int, contract: Axis) -> Description:
        return mesh_gemv(k, n, cores, cores, groups=groups, contract=contract)

    def reduced(*operations: tuple[str, int]) -> Description:
        return _local(cores, operations, k_tree_allreduce("sum", 1, Line("y", cores), tree))

    return (
        (reduced(("square_sum", columns), ("normalize", columns)), 2),
        (product(hidden, 3 * cores * columns, "y"), 1),
        (_local(cores, (("rope", 2 * columns),)), 1),
        (product(hidden, context, "x"), 1),
        (reduced(("scale", tokens)), 1),
        (reduced(("softmax", tokens)), 1),
        (product(context, hidden, "y"), 1),
        (product(hidden, hidden, "x"), 1),
        (product(hidden, 2 * cores * -(-wide // cores), "y"), 1),
        (_local(cores, (("silu", columns), ("multiply", columns), ("add", 2 * columns))), 1),
        (product(wide, hidden, "x"), 1),
    )


def _local(
    cores: int, operations: tuple[tuple[str, int], ...], allreduce: tuple[Communication, ...] = ()
) -> Description:
    """Element-wise work on a core's own elements, then an all-reduce or none."""
    work: tuple[Step, ...] = tuple(Pointwise(name, (), (), elements) for name, elements in operations)
    return Description("element-wise", cores, cores, {}, (*work, *allreduce))
