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
    description = gemm_description(algorithm, _shape(a, b), mesh.rows, mesh.cols, a.dtype.itemsize)
    summary = mesh.admit(description, routes=refuse_routes)
    slots = description.parameters["slots"]
    if algorithm in ("meshgemm", "cannon"):
        ring: RingKind = "interleaved" if algorithm == "meshgemm" else "cyclic"
        tiles = {"a": to_tiles(a, slots, slots), "b": skew_rows(to_tiles(b, slots, slots), ring)}
    else:
        tiles = {"a": to_tiles(a, mesh.rows, slots), "b": to_tiles(b, slots, mesh.cols)}
    return _run(mesh, description, summary, tiles, "c", (a.shape[0], b.shape[1]), accumulator)


def run_gemm_transposed(mesh: Mesh, a: Array, b: Array, accumulator: DTypeLike | None = None) -> MeshResult:
    """``a [m, k] @ b [n, k].T`` by MeshGEMM-T; raises ValueError as :func:`run_gemm` does."""
    shape = _shape(a, b.T)
    description = mesh_gemm_transposed(shape, mesh.rows, mesh.cols, a.dtype.itemsize)
    summary = mesh.admit(description)
    slots = description.parameters["slots"]
    tiles = {"a": to_tiles(a, slots, mesh.cols), "b": to_tiles(b, slots, mesh.cols)}
    return _run(mesh, description, summary, tiles, "c", (shape.m, shape.n), accumulator)


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
    shape = _shape(x, w)
    description = mesh_gemv(
        shape.k, shape.n, mesh.rows, mesh.cols, algorithm, phases, groups, contract, shape.m, x.dtype.itemsize
    )
    summary = mesh.admit(description)
    if contract == "y":
        placed = to_tiles(x, 1, mesh.rows).swapaxes(0, 1).repeat(mesh.cols, axis=1)
        weights = to_tiles(w, mesh.rows, mesh.cols)
    else:
        placed = to_tiles(x, 1, mesh.cols).repeat(mesh.rows, axis=0)
        weights = to_tiles(w, mesh.cols, mesh.rows).swapaxes(0, 1)
    simulator = Simulator(mesh.rows, mesh.cols, {"x": placed, "w": weights}, accumulator=accumulator)
    simulator.run(description)
    tiles = simulator.tiles["y"]
    line = tiles[:1] if contract == "y" else tiles[:, :1].swapaxes(0, 1)
    return MeshResult(from_tiles(line, shape.m, shape.n), tiles, description, summary, simulator.traffic)


def _run(
    mesh: Mesh,
    description: Description,
    summary: Summary,
    tiles: dict[str, Array],
    output: str,
    size: tuple[int, int],
    accumulator: DTypeLike | None,
) -> MeshResult:
    simulator = Simulator(mesh.rows, mesh.cols, tiles, accumulator=accumulator)
    simulator.run(description)
    result = simulator.tiles[output]
    return MeshResult(from_tiles(result, *size), result, description, summary, simulator.traffic)


def _shape(a: Array, b: Array) -> GEMMShape:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0]:
        raise ValueError(f"shapes {a.shape} and {b.shape} do not fit for a matrix product")
    if a.dtype != b.dtype or not (np.issubdtype(a.dtype, np.number) and a.dtype.itemsize >= 2):
        raise ValueError(f"factors need one numeric type of at least 16 bits, got {a.dtype} and {b.dtype}")
    return GEMMShape(a.shape[0], a.shape[1], b.shape[1])
