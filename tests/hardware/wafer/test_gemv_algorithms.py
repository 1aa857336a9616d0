import numpy as np
import pytest

from lapidist.hardware.wafer.gemv_algorithms import mesh_gemv, tree_of


def test_two_trees_use_ten_colours_an_axis() -> None:
    for cores, groups in ((240, 15), (360, 18), (720, 24)):
        summary = mesh_gemv(4096, 4096, cores, cores, groups=groups).summary()
        assert summary.colours == 10
        assert summary.paths_per_core <= 10


@pytest.mark.parametrize("phases", [1, 2, 3])
def test_routes_grow_with_phases_not_with_cores(phases: int) -> None:
    paths = {mesh_gemv(64, 64, n, n, phases=phases).summary().paths_per_core for n in (64, 128, 343, 720)}
    assert max(paths) <= 2 * phases + 3
    assert len(paths) == 1


def test_stages_and_hops_against_pipeline_and_ring() -> None:
    cores = 720
    tree = mesh_gemv(720, 720, cores, cores, groups=24).summary()
    pipeline = mesh_gemv(720, 720, cores, cores, "pipeline").summary()
    ring = mesh_gemv(720, 720, cores, cores, "ring").summary()
    assert (tree.stages, tree.critical_hops) == (27, 750)
    assert (pipeline.stages, pipeline.critical_hops) == (719, 2 * 719)
    assert (ring.stages, ring.hops_per_step) == (2 * 719, 2)


def test_scaling_of_stages() -> None:
    cores = np.array([64, 144, 256, 400, 576, 676])

    def slope(algorithm: str) -> float:
        stages = [
            mesh_gemv(n, n, n, n, algorithm, groups=int(n**0.5) if algorithm == "ktree" else None)  # type: ignore[arg-type]
            .summary()
            .stages
            for n in map(int, cores)
        ]
        return np.polyfit(np.log(cores), np.log(stages), 1)[0]

    assert abs(slope("ktree") - 0.5) <= 0.05
    assert abs(slope("pipeline") - 1) <= 0.05
    assert abs(slope("ring") - 1) <= 0.05


def test_wrong_requests() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        mesh_gemv(0, 4, 2, 2)
    with pytest.raises(ValueError, match="belongs to a tree of two phases"):
        tree_of(16, 3, groups=4)
    with pytest.raises(ValueError, match="from 1 to 16"):
        tree_of(16, 2, groups=17)
    with pytest.raises(ValueError, match="unknown all-reduce 'star'"):
        mesh_gemv(4, 4, 2, 2, "star")  # type: ignore[arg-type]
