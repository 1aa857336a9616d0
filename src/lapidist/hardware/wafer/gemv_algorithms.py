"""All-reduces along an axis of the mesh, and the matrix-vector product that ends in one (MeshGEMV)."""

from typing import Literal

from lapidist.hardware.wafer.communications import Broadcast, Communication, Reduce, Reduction, RingExchange
from lapidist.hardware.wafer.description import Description, Tile
from lapidist.hardware.wafer.line import Axis, Line
from lapidist.hardware.wafer.reduction_tree import reduction_phases, tree_group_sizes
from lapidist.hardware.wafer.steps import Multiply, Repeat, Step

AllReduceAlgorithm = Literal["ktree", "pipeline", "ring"]
ALLREDUCE_ALGORITHMS: tuple[AllReduceAlgorithm, ...] = ("ktree", "pipeline", "ring")


def k_tree_allreduce(
    tile: str, elements: int, line: Line, group_sizes: tuple[int, ...], operation: Reduction = "sum"
) -> tuple[Communication, ...]:
    """K phases of grouped chains and a multicast of the result; ``group_sizes`` are members in each phase."""
    phases = reduction_phases(line.cores, group_sizes)
    reduces = tuple(
        Reduce(tile, elements, line, phase, level, operation) for level, phase in enumerate(phases)
    )
    return (*reduces, Broadcast(tile, tile, elements, line, phases[-1].roots[0]))


def pipeline_allreduce(
    tile: str,
    elements: int,
    line: Line,
    operation: Reduction = "sum",
    root: Literal["first", "middle"] = "first",
) -> tuple[Communication, ...]:
    """One chain through the line to ``root`` and a multicast back."""
    (phase,) = reduction_phases(line.cores, (line.cores,), root)
    reduce = Reduce(tile, elements, line, phase, operation=operation)
    return (reduce, Broadcast(tile, tile, elements, line, phase.roots[0]))


def ring_allreduce(tile: str, elements: int, line: Line) -> tuple[Step, ...]:
    """Reduce-scatter and all-gather of chunks around the interleaved ring, as GPU libraries do."""
    chunk = -(-elements // line.cores)
    exchanges = (RingExchange(tile, chunk, line, "reduce"), RingExchange(tile, chunk, line, "copy"))
    return tuple(Repeat(line.cores - 1, (exchange,)) for exchange in exchanges)


def allreduce_steps(
    algorithm: AllReduceAlgorithm, tile: str, elements: int, line: Line, group_sizes: tuple[int, ...]
) -> tuple[Step, ...]:
    """The named all-reduce of a sum; ``group_sizes`` matter for the K-tree only.

    Raises
    ------
    ValueError : the name is unknown, or the groups leave more than one sum.
    """
    if algorithm == "ktree":
        return k_tree_allreduce(tile, elements, line, group_sizes)
    if algorithm == "pipeline":
        return pipeline_allreduce(tile, elements, line)
    if algorithm == "ring":
        return ring_allreduce(tile, elements, line)
    raise ValueError(f"unknown all-reduce {algorithm!r}; known are {', '.join(ALLREDUCE_ALGORITHMS)}")


def tree_of(cores: int, phases: int, groups: int | None = None) -> tuple[int, ...]:
    """Group sizes of a K-tree; for two phases ``groups`` sets how many groups the first one has (WaferLLM's G).

    Raises
    ------
    ValueError : ``groups`` is given for other than two phases or does not fit on the line.
    """
    if groups is None:
        return tree_group_sizes(cores, phases)
    if phases != 2 or not 1 <= groups <= cores:
        raise ValueError(
            f"a number of groups (from 1 to {cores} here) belongs to a tree of two phases, "
            f"got {groups} groups and {phases} phases"
        )
    size = -(-cores // groups)
    return (size, -(-cores // size))


def mesh_gemv(
    k: int,
    n: int,
    rows: int,
    cols: int,
    algorithm: AllReduceAlgorithm = "ktree",
    phases: int = 2,
    groups: int | None = None,
    contract: Axis = "y",
    batch: int = 1,
    element_bytes: int = 2,
) -> Description:
    """MeshGEMV: ``y [batch, n] = x [batch, k] W [k, n]``, W split over both axes.

    With ``contract="y"`` x is split over y and alike in all columns, and the result is split over x and alike in all
    rows, so the next product contracts ``x``: layouts alternate and nothing is ever transposed.
    """
    if min(k, n, batch) < 1:
        raise ValueError(f"sides of a matrix-vector product are at least 1, got {batch} x {k} x {n}")
    along, across = (rows, cols) if contract == "y" else (cols, rows)
    line = Line(contract, along)
    tile_k, tile_n = -(-k // along), -(-n // across)
    reduced = batch * tile_n
    ring_padding = -reduced % along if algorithm == "ring" else 0
    steps = allreduce_steps(algorithm, "y", reduced, line, tree_of(along, phases, groups))
    return Description(
        f"gemv {algorithm}",
        rows,
        cols,
        {
            "x": Tile("x", batch * tile_k, "input"),
            "w": Tile("w", tile_k * tile_n, "resident"),
            "y": Tile("y", reduced + ring_padding, "output"),
        },
        (Multiply("x", "w", "y", batch, tile_k, tile_n, accumulate=False), *steps),
        element_bytes,
        {"tile_k": tile_k, "tile_n": tile_n, "batch": batch},
    )
