"""Products of real matrices on a simulated mesh, with what they cost it in routes, hops, stages and memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from lapidist.hardware.wafer.description import Description, Summary
from lapidist.hardware.wafer.gemm_algorithms import (
    GEMMAlgorithm,
    GEMMShape,
    gemm_description,
    mesh_gemm_transposed,
)
from lapidist.hardware.wafer.gemv_algorithms import AllReduceAlgorithm, mesh_gemv
from lapidist.hardware.wafer.line import Axis
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.placement import Array, from_tiles, skew_rows, to_tiles
from lapidist.hardware.wafer.ring import RingKind
from lapidist.hardware.wafer.simulator import Simulator, Traffic


@dataclass(frozen=True)
class Problem:
    """A product with its factors placed: ready to be simulated or run on ranks.

    Attributes
    ----------
    tiles : factors by name, ``[y slots, x slots, *tile]``.
    output : the name of the result.
    size : rows and columns of the result.
    shared : axis along which all cores end with the same result, None if each holds a part.
    """

    description: Description
    tiles: dict[str, Array]
    output: str
    size: tuple[int, int]
    shared: Axis | None = None

    def collect(self, tiles: Array) -> Array:
        """The result ``[m, n]`` from its tiles on the mesh."""
        if self.shared == "y":
            tiles = tiles[:1]
        elif self.shared == "x":
            tiles = tiles[:, :1].swapaxes(0, 1)
        return from_tiles(tiles, *self.size)


@dataclass(frozen=True)
class MeshResult:
    """A product and how the mesh came by it.

    Attributes
    ----------
    output : ``[m, n]``.
    tiles : the same as it lies on the mesh, ``[y slots, x slots, *tile]``.
    """

    output: Array
    tiles: Array
    description: Description
    summary: Summary
    traffic: Traffic


def gemm_problem(rows: int, cols: int, algorithm: GEMMAlgorithm, a: Array, b: Array) -> Problem:
    """``a [m, k] @ b [k, n]`` by the named algorithm.

    Raises
    ------
    ValueError : the factors do not fit together, or the algorithm is unknown.
    """
    shape = _shape(a, b)
    description = gemm_description(algorithm, shape, rows, cols, a.dtype.itemsize)
    slots = description.parameters["slots"]
    if algorithm in ("meshgemm", "cannon"):
        ring: RingKind = "interleaved" if algorithm == "meshgemm" else "cyclic"
        tiles = {"a": to_tiles(a, slots, slots), "b": skew_rows(to_tiles(b, slots, slots), ring)}
    else:
        tiles = {"a": to_tiles(a, rows, slots), "b": to_tiles(b, slots, cols)}
    return Problem(description, tiles, "c", (shape.m, shape.n))


def gemm_transposed_problem(rows: int, cols: int, a: Array, b: Array) -> Problem:
    """``a [m, k] @ b [n, k].T`` by MeshGEMM-T; raises ValueError as :func:`gemm_problem` does."""
    shape = _shape(a, b.T)
    description = mesh_gemm_transposed(shape, rows, cols, a.dtype.itemsize)
    slots = description.parameters["slots"]
    tiles = {"a": to_tiles(a, slots, cols), "b": to_tiles(b, slots, cols)}
    return Problem(description, tiles, "c", (shape.m, shape.n))


def gemv_problem(
    rows: int,
    cols: int,
    x: Array,
    w: Array,
    algorithm: AllReduceAlgorithm = "ktree",
    phases: int = 2,
    groups: int | None = None,
    contract: Axis = "y",
) -> Problem:
    """``x [batch, k] @ w [k, n]`` by MeshGEMV; raises ValueError as :func:`gemm_problem` does."""
    shape = _shape(x, w)
    description = mesh_gemv(
        shape.k, shape.n, rows, cols, algorithm, phases, groups, contract, shape.m, x.dtype.itemsize
    )
    if contract == "y":
        placed = to_tiles(x, 1, rows).swapaxes(0, 1).repeat(cols, axis=1)
        weights = to_tiles(w, rows, cols)
    else:
        placed = to_tiles(x, 1, cols).repeat(rows, axis=0)
        weights = to_tiles(w, cols, rows).swapaxes(0, 1)
    return Problem(description, {"x": placed, "w": weights}, "y", (shape.m, shape.n), contract)


def run_gemm(
    mesh: Mesh,
    algorithm: GEMMAlgorithm,
    a: Array,
    b: Array,
    accumulator: DTypeLike | None = None,
    refuse_routes: bool = True,
) -> MeshResult:
    """``a [m, k] @ b [k, n]`` by the named algorithm; the elements keep their type.

    Parameters
    ----------
    accumulator : type of sums, None for that of the elements; ``float16`` rounds every multiply-add.
    refuse_routes : refuse an algorithm that needs more routes than a core has.

    Raises
    ------
    ValueError : the shapes do not fit together, the algorithm is unknown, or a core cannot hold its part.
    """
    problem = gemm_problem(mesh.rows, mesh.cols, algorithm, a, b)
    return simulate(mesh, problem, accumulator, refuse_routes)


def run_gemm_transposed(mesh: Mesh, a: Array, b: Array, accumulator: DTypeLike | None = None) -> MeshResult:
    """``a [m, k] @ b [n, k].T`` by MeshGEMM-T; raises ValueError as :func:`run_gemm` does."""
    return simulate(mesh, gemm_transposed_problem(mesh.rows, mesh.cols, a, b), accumulator)


def run_gemv(
    mesh: Mesh,
    x: Array,
    w: Array,
    algorithm: AllReduceAlgorithm = "ktree",
    phases: int = 2,
    groups: int | None = None,
    contract: Axis = "y",
    accumulator: DTypeLike | None = None,
) -> MeshResult:
    """``x [batch, k] @ w [k, n]`` by MeshGEMV; raises ValueError as :func:`run_gemm` does.

    The result's ``tiles`` are ``[rows, cols, batch, tile_n]``, alike along the contracted axis.
    """
    problem = gemv_problem(mesh.rows, mesh.cols, x, w, algorithm, phases, groups, contract)
    return simulate(mesh, problem, accumulator)


def simulate(
    mesh: Mesh, problem: Problem, accumulator: DTypeLike | None = None, refuse_routes: bool = True
) -> MeshResult:
    """Run a placed product on ``mesh``; raises ValueError if a core cannot hold its part."""
    summary = mesh.admit(problem.description, routes=refuse_routes)
    tiles = {name: tile.copy() for name, tile in problem.tiles.items()}
    simulator = Simulator(mesh.rows, mesh.cols, tiles, accumulator=accumulator)
    simulator.run(problem.description)
    result = simulator.tiles[problem.output]
    return MeshResult(problem.collect(result), result, problem.description, summary, simulator.traffic)


def _shape(a: Array, b: Array) -> GEMMShape:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not fit for a matrix product")
    if a.dtype != b.dtype or not (np.issubdtype(a.dtype, np.number) and a.dtype.itemsize >= 2):
        raise ValueError(f"factors need one numeric type of at least 16 bits, got {a.dtype} and {b.dtype}")
    return GEMMShape(a.shape[0], a.shape[1], b.shape[1])
