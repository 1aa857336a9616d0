"""Cycles of algorithms, by hand where that is possible and against the claims of WaferLLM (arXiv 2502.04563)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.wafer.cost import COMMUNICATION, COMPONENTS, COMPUTE, CostModel
from lapidist.hardware.wafer.cost_constants import CONSTANT_NAMES, CostConstants, calibrated_constants
from lapidist.hardware.wafer.cost_terms import cost_terms
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.gemm_algorithms import (
    GEMM_ALGORITHMS,
    GEMMShape,
    cannon,
    gemm_description,
    mesh_gemm,
    summa,
)
from lapidist.hardware.wafer.gemv_algorithms import mesh_gemv
from lapidist.hardware.wafer.steps import Pointwise

WSE2 = CostModel(calibrated_constants("wse-2"), 4)
WSE3 = CostModel(calibrated_constants("wse-3"), 4)


def with_constants(**cycles: float) -> CostModel:
    """A model in which everything else is free."""
    return CostModel(CostConstants(**{name: cycles.get(name, 0.0) for name in CONSTANT_NAMES}), 4)


def square(size: int, cores: int, algorithm: str = "meshgemm") -> Description:
    return gemm_description(algorithm, GEMMShape(size, size, size), cores, cores)  # type: ignore[arg-type]


def loops(size: int, cores: int) -> tuple[float, float, float]:
    """WSE-2 cycles of MeshGEMM and Cannon with operands aligned where they are placed, and of SUMMA."""
    shape = GEMMShape(size, size, size)
    mesh, plain = (algorithm(shape, cores, cores, aligned=True) for algorithm in (mesh_gemm, cannon))
    return WSE2.cost(mesh).cycles, WSE2.cost(plain).cycles, WSE2.cost(summa(shape, cores, cores)).cycles


def test_mesh_gemm_by_hand() -> None:
    """P = 6, tiles of 2 x 2: 3 shifts to align, 6 steps; 2 rows of B, 4 vector calls, 8 multiply-accumulates."""
    gemm = square(12, 6)
    assert with_constants(step=1).cost(gemm).by_component["step set-up"] == 9
    assert with_constants(k_iteration=1).cost(gemm).by_component["multiply"] == 6 * 2
    assert with_constants(fma_call=1).cost(gemm).by_component["multiply"] == 6 * 4
    assert with_constants(fma_mac=1).cost(gemm).by_component["multiply"] == 6 * 8
    assert with_constants(launch=1).cost(gemm).by_component["launch"] == 1
    moved = with_constants(moved_element=1).cost(gemm).by_component["moving tiles"]
    assert moved == 6 * (4 + 4) + 3 * 4 * 2 / 4, "both tiles in the loop; X over the link while aligning"
    assert (
        with_constants(overlap_slowdown=0.5, overlap_window=3, fma_mac=1).cost(gemm).cycles
        == 6 * (8 + 0.5 * 3) + 6 * 0 + 3 * 4 * 2 / 4
    )


def test_only_what_lies_beyond_the_ring_and_the_work_is_waited_for() -> None:
    """Cannon's long flow crosses P - 1 links, two of which every step has; work of 8 cycles hides the rest."""
    hop = with_constants(hop=1)
    assert hop.cost(square(12, 6)).by_component["waiting for tiles"] == 6 * 2, (
        "two words a tile, no work to hide it"
    )
    assert hop.cost(square(12, 6, "cannon")).by_component["waiting for tiles"] == 6 * (6 - 1 - 2 + 2)
    assert (
        with_constants(hop=1, fma_mac=1).cost(square(12, 6, "cannon")).by_component["waiting for tiles"] == 0
    )


def test_an_allreduce_by_hand() -> None:
    """P = 16 in 4 groups: 2 + 2 stages; 2 + 2 x 4 hops to core 10 and 10 back; five passes of 3 elements."""
    gemv = mesh_gemv(16 * 2, 16 * 3, 16, 16, groups=4)
    assert with_constants(stage=1).cost(gemv).cycles == 4
    assert with_constants(hop=1).cost(gemv).cycles == 20
    assert with_constants(pass_element=1).cost(gemv).cycles == 15
    assert with_constants(allreduce_launch=1).cost(gemv).cycles == 1
    assert with_constants(gemv_call=1).cost(gemv).cycles == 2
    assert with_constants(gemv_mac=1).cost(gemv).cycles == 6
    assert with_constants(allreduce_floor=50, hop=1).cost(gemv).cycles == 50
    assert with_constants(allreduce_floor=15, hop=1).cost(gemv).cycles == 20


def test_components_add_up_and_programs_do_not_mix() -> None:
    programs = [
        [(square(64, 8), 2), (mesh_gemv(64, 64, 8, 8), 3)],
        [(mesh_gemv(640, 64, 8, 8, "ring"), 1)],
        [(square(64, 8, "allgather"), 1)],
    ]
    together = WSE2.cycles(cost_terms(programs))
    for program, cycles in zip(programs, together, strict=True):
        cost = WSE2.program_cost(program)
        assert set(cost.by_component) == set(COMPONENTS)
        assert cost.cycles == pytest.approx(cycles)
        assert cost.cycles == pytest.approx(sum(times * WSE2.cost(one).cycles for one, times in program))


@given(st.integers(2, 40), st.sampled_from(GEMM_ALGORITHMS), st.integers(1, 12))
def test_cycles_are_positive_and_grow_with_the_problem(cores: int, algorithm: str, tile: int) -> None:
    small, large = (WSE3.cost(square(side * cores, cores, algorithm)).cycles for side in (tile, tile + 1))
    assert 0 < small < large


def test_unknown_element_wise_work_is_refused() -> None:
    odd = Description("odd", 2, 2, {}, (Pointwise("erf", (), (), 3),))
    with pytest.raises(ValueError, match="'erf' is unknown"):
        WSE2.cost(odd)


def test_a_step_costs_the_same_on_every_mesh() -> None:
    """The two-hop claim: cycles of a step of 1 x 1 tiles, alignment included, vary less than 5 % from P = 16 to 720."""
    sides = np.array([16, 80, 144, 336, 720])
    per_step = np.array([WSE3.cost(square(side, side)).cycles / (1.5 * side) for side in sides])
    assert per_step.max() / per_step.min() < 1.05
    plain = np.array([WSE3.cost(square(side, side, "cannon")).cycles / (1.5 * side) for side in sides])
    slope, _ = np.polyfit(sides, plain, 1)
    assert slope > 1, "a step of Cannon waits for a flow along the whole line"
    assert np.corrcoef(sides, plain)[0, 1] > 0.999


def test_scaling_exponents() -> None:
    sides = np.array([64, 100, 144, 256, 400, 576, 720])
    trees = [mesh_gemv(side, side, side, side, groups=round(side**0.5)) for side in sides]
    lines = {
        name: [WSE2.cost(mesh_gemv(side, side, side, side, name)).cycles for side in sides]
        for name in ("pipeline", "ring")
    }

    def exponent(values: list[float]) -> float:
        return float(np.polyfit(np.log(sides), np.log(values), 1)[0])

    assert exponent([tree.summary().stages for tree in trees]) == pytest.approx(0.5, abs=0.05)
    for name, cycles in lines.items():
        assert exponent(cycles) == pytest.approx(1.0, abs=0.05), name
    hops = exponent([WSE2.cost(tree).by_component["hops"] for tree in trees])
    assert hops == pytest.approx(1.0, abs=0.05)
    assert exponent([WSE2.cost(tree).cycles - WSE2.cost(tree).by_component["hops"] for tree in trees]) < 0.55


@pytest.mark.parametrize("size", [2048, 4096, 8192])
@pytest.mark.parametrize("cores", [360, 480, 600, 720])
def test_mesh_gemm_beats_cannon_beats_summa(size: int, cores: int) -> None:
    mesh, plain, broadcast = loops(size, cores)
    assert mesh <= plain <= broadcast


def test_gain_over_cannon_where_tiles_are_small() -> None:
    mesh, plain, _ = loops(2048, 720)
    assert 2 < plain / mesh < 3.5


def test_what_the_paper_says_of_its_figures() -> None:
    """Section 7: above 70 % efficiency on 720 x 720 where the others are below 50 %; 2K stays flat, theirs rise."""
    shape = GEMMShape(4096, 4096, 4096)
    mesh, plain, broadcast = (
        WSE2.cost(each).share(COMPUTE)
        for each in (
            mesh_gemm(shape, 720, 720, aligned=True),
            cannon(shape, 720, 720, aligned=True),
            summa(shape, 720, 720),
        )
    )
    assert mesh > 0.7
    assert plain < 0.5
    assert broadcast < 0.5
    small, large = loops(2048, 360), loops(2048, 720)
    assert large[0] == pytest.approx(small[0], rel=0.1)
    assert large[1] > 2 * small[1]
    assert large[2] > 2 * small[2]


@pytest.mark.parametrize("cores", [240, 360, 480, 600, 720])
def test_gain_of_the_tree_over_the_pipeline_to_one_end(cores: int) -> None:
    tree, pipeline = (
        WSE3.cost(mesh_gemv(cores, cores, cores, cores, name)).cycles for name in ("ktree", "pipeline")
    )
    assert 4 < pipeline / tree < 5.5


def test_three_phases_beat_one() -> None:
    one, two, three = (WSE2.cost(mesh_gemv(720, 720, 720, 720, phases=k)).cycles for k in (1, 2, 3))
    assert two < one
    assert three < one


def test_share_of_nothing_is_nothing() -> None:
    assert WSE2.cost(Description("empty", 1, 1, {}, ())).share(COMMUNICATION) == 0
