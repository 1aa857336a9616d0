import pickle

import numpy as np
import pytest

from lapidist.hardware.wafer.communications import Broadcast, Shift
from lapidist.hardware.wafer.description import Description, Tile
from lapidist.hardware.wafer.gemm_algorithms import GEMM_ALGORITHMS, GEMMShape, gemm_description, mesh_gemm
from lapidist.hardware.wafer.line import Line
from lapidist.hardware.wafer.steps import Multiply, Pointwise, Reconfigure, Repeat, Together

ACROSS = Line("x", 4)


def work(reads: str, writes: str) -> Pointwise:
    return Pointwise("add", tuple(reads.split()), tuple(writes.split()), 1)


def test_tiles_live_from_their_first_write_to_their_last_read() -> None:
    tiles = {
        "weights": Tile("weights", 1, "resident"),
        "in": Tile("in", 10, "input"),
        "early": Tile("early", 100),
        "late": Tile("late", 1000),
        "out": Tile("out", 10000, "output"),
    }
    program = (
        work("in", "early"),
        work("early", "early"),
        work("early", "out"),
        work("out", "late"),
        work("late", "late"),
    )
    description = Description("lives", 4, 4, tiles, program)
    held = [description.memory_at(index) for index in range(len(program))]
    assert held == [111, 101, 10101, 11001, 11001]
    assert description.summary().peak_elements == 11001
    assert description.summary().peak_bytes == 22002


def test_a_shift_needs_a_second_buffer_while_it_runs() -> None:
    tiles = {"a": Tile("a", 6, "input"), "c": Tile("c", 1, "output")}
    shift, product = Shift("a", 6, ACROSS), Multiply("a", "a", "c", 1, 1, 1)
    together = Description("both", 4, 4, tiles, (Repeat(4, (Together((product, shift)),)),))
    assert together.summary().peak_elements == 6 + 6 + 1
    assert Description("alone", 4, 4, tiles, (product,)).summary().peak_elements == 7


def test_walking_multiplies_loops_out() -> None:
    shift, other = Shift("a", 6, ACROSS), work("a", "a")
    description = Description(
        "walk", 4, 4, {}, (shift, Repeat(3, (other, Together((shift, other)))), Repeat(0, (shift,)))
    )
    assert [times for _, times in description.walk()] == [1, 3, 3]
    assert [times for _, times in description.communications()] == [1, 3]
    summary = description.summary()
    assert (summary.shifts, summary.critical_hops, summary.hops_per_step) == (4, 8, 2)


def test_steps_share_the_routes_of_their_family() -> None:
    one = Description("one", 4, 4, {}, (Shift("a", 6, ACROSS),)).summary()
    same = Description("same", 4, 4, {}, (Shift("a", 6, ACROSS), Shift("b", 9, ACROSS))).summary()
    assert same.paths_per_core == one.paths_per_core == 3


def test_routes_of_two_configurations_do_not_add_up() -> None:
    ring, multicast = Shift("a", 6, ACROSS), Broadcast("a", "b", 6, ACROSS, 1)
    both = Description("both", 4, 4, {}, (ring, multicast)).summary()
    anew = Description("anew", 4, 4, {}, (ring, Reconfigure(), multicast)).summary()
    assert both.paths_per_core == 5
    assert (anew.paths_per_core, anew.reconfigurations, both.reconfigurations) == (3, 1, 0)
    assert anew.critical_hops == both.critical_hops


@pytest.mark.parametrize("algorithm", GEMM_ALGORITHMS)
def test_descriptions_do_not_grow_with_the_mesh(algorithm: str) -> None:
    sizes = {
        cores: len(pickle.dumps(gemm_description(algorithm, GEMMShape(4096, 4096, 4096), cores, cores)))
        for cores in (36, 720)
    }
    assert abs(sizes[720] - sizes[36]) < 100


def test_router_loads_count_what_passes_through() -> None:
    """Two hops make every message pass one more router than it starts and ends at, but for those at the ends."""
    description = mesh_gemm(GEMMShape(16, 16, 16), 8, 8, aligned=True)
    for step, _ in description.communications():
        assert step.router_elements.sum() == 4 * (2 * 2 + 6 * 3)
        assert np.all(step.router_elements[1:-1] == 4 * 3)
