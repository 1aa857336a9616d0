"""Matrix products on a mesh, described step by step: MeshGEMM, MeshGEMM-T and the algorithms they replace.

All compute ``C [M, N] = A [M, K] B [K, N]`` on ``rows`` x ``cols`` cores with C stationary. A mesh that is not
square runs as one of ``lcm(rows, cols)`` squared slots, several slots on a core (WaferLLM section 5). Sizes that do
not divide are padded with zeros to whole tiles.
"""

from dataclasses import dataclass
from math import lcm
from typing import Literal

from lapidist.hardware.wafer.communications import AllGather, Broadcast, ReduceToRing, Shift
from lapidist.hardware.wafer.description import Description, Tile
from lapidist.hardware.wafer.line import Line
from lapidist.hardware.wafer.ring import RingKind
from lapidist.hardware.wafer.steps import Multiply, Repeat, Together

GEMMAlgorithm = Literal["meshgemm", "cannon", "summa", "allgather"]
GEMM_ALGORITHMS: tuple[GEMMAlgorithm, ...] = ("meshgemm", "cannon", "summa", "allgather")


@dataclass(frozen=True)
class GEMMShape:
    """``C [m, n] = A [m, k] B [k, n]``; sides are positive."""

    m: int
    k: int
    n: int

    def __post_init__(self) -> None:
        if min(self.m, self.k, self.n) < 1:
            raise ValueError(f"sides of a matrix product are at least 1, got {self.m} x {self.k} x {self.n}")


def gemm_description(
    algorithm: GEMMAlgorithm, shape: GEMMShape, rows: int, cols: int, element_bytes: int = 2
) -> Description:
    """The named algorithm; raises ValueError for an unknown name."""
    if algorithm == "meshgemm":
        return mesh_gemm(shape, rows, cols, element_bytes)
    if algorithm == "cannon":
        return cannon(shape, rows, cols, element_bytes)
    if algorithm == "summa":
        return summa(shape, rows, cols, element_bytes)
    if algorithm == "allgather":
        return allgather_gemm(shape, rows, cols, element_bytes)
    raise ValueError(f"unknown GEMM algorithm {algorithm!r}; known are {', '.join(GEMM_ALGORITHMS)}")


def mesh_gemm(
    shape: GEMMShape, rows: int, cols: int, element_bytes: int = 2, aligned: bool = False
) -> Description:
    """MeshGEMM: compute-shift on interleaved rings, at most two hops a step.

    B is skewed where it is placed, A on the mesh before the loop unless it is already ``aligned``. The loop shifts as
    often as it multiplies, which leaves A and B as they were before it, ready for the next product with the same A.
    """
    return _compute_shift("meshgemm", "interleaved", shape, (rows, cols), element_bytes, aligned)


def cannon(
    shape: GEMMShape, rows: int, cols: int, element_bytes: int = 2, aligned: bool = False
) -> Description:
    """Cannon's algorithm: the same loop on plain rings, whose last flow crosses the whole line."""
    return _compute_shift("cannon", "cyclic", shape, (rows, cols), element_bytes, aligned)


def _compute_shift(
    name: str, ring: RingKind, shape: GEMMShape, mesh: tuple[int, int], element_bytes: int, aligned: bool
) -> Description:
    rows, cols = mesh
    slots = lcm(rows, cols)
    across, down = Line("x", cols, slots), Line("y", rows, slots)
    m, k, n = _tile(shape, slots)
    per_core = across.slots_per_core * down.slots_per_core
    return Description(
        name,
        rows,
        cols,
        {
            "a": Tile("a", per_core * m * k, "input"),
            "b": Tile("b", per_core * k * n, "input"),
            "c": Tile("c", per_core * m * n, "output"),
        },
        (
            *(() if aligned else (align("a", m * k, across, down, ring),)),
            compute_shift(("a", "b", "c"), (m, k, n), across, down, ring),
        ),
        element_bytes,
        {"slots": slots, "tile_m": m, "tile_k": k, "tile_n": n},
    )


def align(tile: str, elements: int, along: Line, across: Line, ring: RingKind = "interleaved") -> Repeat:
    """Skew a tensor along one line: each slot of the other line turns its own number of times.

    ``elements`` are those of a tile in one slot of both lines.
    """
    shift = Shift(tile, across.used * elements, along, ring, skew=across)
    return Repeat(along.slots // 2, (shift,))


def compute_shift(
    names: tuple[str, str, str],
    tile: tuple[int, int, int],
    across: Line,
    down: Line,
    ring: RingKind = "interleaved",
    batch: int = 1,
) -> Repeat:
    """The loop ``c += a b`` in which a turns along ``across`` and b along ``down``, both skewed before.

    Parameters
    ----------
    names : of a, b and c.
    tile : m, k and n of the product of two tiles, of which a slot has ``batch`` (attention heads).
    """
    a, b, c = names
    m, k, n = tile
    products = batch * across.used * down.slots_per_core
    partly = across if across.used < across.slots_per_core else None
    step = Together(
        (
            Multiply(a, b, c, m, k, n, products, across=partly),
            Shift(a, down.slots_per_core * batch * m * k, across, ring),
            Shift(b, across.used * batch * k * n, down, ring),
        )
    )
    return Repeat(across.slots, (step,))


def mesh_gemm_transposed(shape: GEMMShape, rows: int, cols: int, element_bytes: int = 2) -> Description:
    """MeshGEMM-T: ``C [m, n] = A [m, k] B [n, k].T`` without transposing B and without alignment.

    A and B are split the same way, rows over y and the contraction over x. B turns on the y ring; every product is
    summed along x to the column that C's block belongs to.
    """
    slots = lcm(rows, cols)
    down, targets = Line("y", rows, slots), Line("x", cols, slots)
    m, n, k = _ceil(shape.m, slots), _ceil(shape.n, slots), _ceil(shape.k, cols)
    per_core = down.slots_per_core
    step = Together(
        (
            Multiply("a", "b", "partial", m, k, n, per_core, transpose_b=True, accumulate=False),
            ReduceToRing("partial", "c", per_core * m * n, targets, down),
            Shift("b", n * k, down),
        )
    )
    return Description(
        "meshgemm-t",
        rows,
        cols,
        {
            "a": Tile("a", per_core * m * k, "input"),
            "b": Tile("b", per_core * n * k, "input"),
            "partial": Tile("partial", per_core * m * n),
            "c": Tile("c", per_core * targets.slots_per_core * m * n, "output"),
        },
        (Repeat(slots, (step,)),),
        element_bytes,
        {"slots": slots, "tile_m": m, "tile_k": k, "tile_n": n},
    )


def summa(
    shape: GEMMShape, rows: int, cols: int, element_bytes: int = 2, reconfigured: bool = False
) -> Description:
    """SUMMA: in step ``t`` column ``t`` of A is broadcast along x and row ``t`` of B along y.

    Each root has its own routes; ``reconfigured`` programs one route anew in each step instead, as a library would
    whose routers cannot hold them all.
    """
    slots = lcm(rows, cols)
    across, down = Line("x", cols, slots), Line("y", rows, slots)
    m, k, n = _ceil(shape.m, rows), _ceil(shape.k, slots), _ceil(shape.n, cols)
    fetch = Together(
        (
            Broadcast("a", "a panel", m * k, across, "turn", reconfigured),
            Broadcast("b", "b panel", k * n, down, "turn", reconfigured),
        )
    )
    return Description(
        "summa",
        rows,
        cols,
        {
            "a": Tile("a", across.slots_per_core * m * k, "input"),
            "b": Tile("b", down.slots_per_core * k * n, "input"),
            "a panel": Tile("a panel", m * k),
            "b panel": Tile("b panel", k * n),
            "c": Tile("c", m * n, "output"),
        },
        (Repeat(slots, (fetch, Multiply("a panel", "b panel", "c", m, k, n))),),
        element_bytes,
        {"slots": slots, "tile_m": m, "tile_k": k, "tile_n": n},
    )


def allgather_gemm(shape: GEMMShape, rows: int, cols: int, element_bytes: int = 2) -> Description:
    """All-gather GEMM: each core first collects its whole row of A and column of B, then multiplies once."""
    slots = lcm(rows, cols)
    across, down = Line("x", cols, slots), Line("y", rows, slots)
    m, k, n = _ceil(shape.m, rows), _ceil(shape.k, slots), _ceil(shape.n, cols)
    return Description(
        "allgather",
        rows,
        cols,
        {
            "a": Tile("a", across.slots_per_core * m * k, "input"),
            "b": Tile("b", down.slots_per_core * k * n, "input"),
            "a panel": Tile("a panel", slots * m * k),
            "b panel": Tile("b panel", slots * k * n),
            "c": Tile("c", m * n, "output"),
        },
        (
            AllGather("a", "a panel", m * k, across, along=1),
            AllGather("b", "b panel", k * n, down, along=0),
            Multiply("a panel", "b panel", "c", m, slots * k, n),
        ),
        element_bytes,
        {"slots": slots, "tile_m": m, "tile_k": k, "tile_n": n},
    )


def _tile(shape: GEMMShape, slots: int) -> tuple[int, int, int]:
    return _ceil(shape.m, slots), _ceil(shape.k, slots), _ceil(shape.n, slots)


def _ceil(value: int, parts: int) -> int:
    return -(-value // parts)
