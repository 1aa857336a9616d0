import numpy as np
import pytest

from lapidist.hardware.wafer.communications import Shift
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.gemm_algorithms import (
    GEMM_ALGORITHMS,
    GEMMShape,
    allgather_gemm,
    cannon,
    gemm_description,
    mesh_gemm,
    mesh_gemm_transposed,
    summa,
)
from lapidist.hardware.wafer.steps import Repeat

HIGHLY_DIVISIBLE = 5040
CORES = [p for p in range(60, 721) if HIGHLY_DIVISIBLE % p == 0]


def square(side: int) -> GEMMShape:
    return GEMMShape(side, side, side)


def loops(description: Description) -> list[int]:
    return [step.count for step in description.program if isinstance(step, Repeat)]


@pytest.mark.parametrize("cores", [3, 4, 5, 8, 13, 64, 720])
def test_meshgemm_aligns_in_half_a_turn_and_loops_once_round(cores: int) -> None:
    assert loops(mesh_gemm(square(cores), cores, cores)) == [cores // 2, cores]
    assert loops(mesh_gemm(square(cores), cores, cores, aligned=True)) == [cores]


@pytest.mark.parametrize("cores", [3, 4, 8, 13, 64, 720])
def test_hops_of_a_step(cores: int) -> None:
    shape = square(2 * cores)
    assert mesh_gemm(shape, cores, cores).summary().hops_per_step == 2
    for algorithm in (cannon, summa, allgather_gemm):
        assert algorithm(shape, cores, cores).summary().hops_per_step == cores - 1


@pytest.mark.parametrize("cores", [8, 64, 720])
def test_routes(cores: int) -> None:
    shape = square(cores)
    loop = mesh_gemm(shape, cores, cores, aligned=True)
    ((down, across),) = loop.path_profiles
    assert down.max() == across.max() == 3
    assert mesh_gemm(shape, cores, cores).summary().paths_per_core <= 12
    assert mesh_gemm_transposed(shape, cores, cores).summary().paths_per_core <= 12
    assert cannon(shape, cores, cores).summary().paths_per_core <= 12
    assert summa(shape, cores, cores).summary().paths_per_core == 2 * cores
    assert allgather_gemm(shape, cores, cores).summary().paths_per_core == 2 * cores


@pytest.mark.parametrize("cores", CORES)
def test_memory_of_meshgemm(cores: int) -> None:
    tile_m, tile_k, tile_n = 10080 // cores, HIGHLY_DIVISIBLE // cores, 15120 // cores
    peak = mesh_gemm(GEMMShape(10080, 5040, 15120), cores, cores).summary().peak_bytes
    assert peak == 2 * (2 * tile_m * tile_k + 2 * tile_k * tile_n + tile_m * tile_n)


def test_memory_falls_as_the_square_of_the_cores_or_only_as_the_cores() -> None:
    def slope(algorithm) -> float:
        peaks = [algorithm(square(HIGHLY_DIVISIBLE), cores, cores).summary().peak_bytes for cores in CORES]
        return np.polyfit(np.log(CORES), np.log(peaks), 1)[0]

    assert abs(slope(mesh_gemm) + 2) <= 1e-6
    assert abs(slope(summa) + 2) <= 1e-6
    assert abs(slope(allgather_gemm) + 1) <= 0.05


def test_meshgemm_transposed_needs_no_alignment() -> None:
    description = mesh_gemm_transposed(square(26), 13, 13)
    assert not any(isinstance(step, Shift) and step.skew for step, _ in description.communications())
    assert description.summary().shifts == 13


@pytest.mark.parametrize(("rows", "cols", "slots"), [(2, 3, 6), (4, 6, 12), (5, 7, 35), (8, 2, 8)])
def test_meshes_that_are_not_square_run_as_their_least_common_multiple(
    rows: int, cols: int, slots: int
) -> None:
    for algorithm in GEMM_ALGORITHMS:
        assert gemm_description(algorithm, square(70), rows, cols).parameters["slots"] == slots
    assert mesh_gemm(square(70), rows, cols).summary().hops_per_step <= 2


def test_wrong_requests() -> None:
    with pytest.raises(ValueError, match=r"unknown GEMM algorithm 'strassen'; known are meshgemm"):
        gemm_description("strassen", square(4), 2, 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        GEMMShape(0, 1, 1)
