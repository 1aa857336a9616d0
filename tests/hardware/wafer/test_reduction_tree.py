import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.wafer.reduction_tree import reduction_phases, tree_group_sizes


def add_up(cores: int, group_sizes: tuple[int, ...], root: str = "middle") -> int:
    """Core that holds the sum of ``2 ** core``, every contribution once and no core read after it has sent."""
    held = [1 << core for core in range(cores)]
    gone: set[int] = set()
    phases = reduction_phases(cores, group_sizes, root)
    for phase in phases:
        for stage in phase.stages:
            for move in stage:
                assert not gone & set(move.source)
                for source, target in zip(move.source, move.target, strict=True):
                    assert not held[source] & held[target]
                    held[target] |= held[source]
                gone |= set(move.source)
    (last,) = phases[-1].roots
    assert held[last] == (1 << cores) - 1
    return last


def test_two_phases_of_every_divisor() -> None:
    for cores in range(4, 65):
        for groups in (g for g in range(1, cores + 1) if cores % g == 0):
            size = cores // groups
            phases = reduction_phases(cores, (size, groups))
            stages = sum(len(phase.stages) for phase in phases)
            root = add_up(cores, (size, groups))
            assert root == groups // 2 * size + size // 2
            assert stages == size // 2 + groups // 2
            assert phases[0].hops == size // 2
            assert phases[1].hops == groups // 2 * size


@pytest.mark.parametrize(
    ("cores", "groups", "stages", "hops"),
    [
        (240, 15, 15, 240),
        (256, 16, 16, 272),
        (300, 15, 17, 300),
        (360, 18, 19, 380),
        (420, 20, 20, 440),
        (480, 20, 22, 504),
        (512, 32, 24, 528),
        (540, 20, 23, 566),
        (600, 24, 24, 624),
        (660, 22, 26, 690),
        (720, 24, 27, 750),
    ],
)
def test_stages_and_hops_of_the_released_group_numbers(
    cores: int, groups: int, stages: int, hops: int
) -> None:
    phases = reduction_phases(cores, (cores // groups, groups))
    (root,) = phases[-1].roots
    assert sum(len(phase.stages) for phase in phases) == stages
    assert sum(phase.hops for phase in phases) + max(root, cores - 1 - root) == hops


@given(cores=st.integers(1, 200), phases=st.integers(1, 4))
def test_any_line_and_number_of_phases(cores: int, phases: int) -> None:
    sizes = tree_group_sizes(cores, phases)
    assert len(sizes) == phases
    add_up(cores, sizes)


@given(cores=st.integers(2, 100))
def test_a_pipeline_to_the_end_passes_every_core(cores: int) -> None:
    assert add_up(cores, (cores,), "first") == 0
    (phase,) = reduction_phases(cores, (cores,), "first")
    assert len(phase.stages) == phase.hops == cores - 1


@pytest.mark.parametrize("phases", [1, 2, 3])
def test_stages_grow_as_the_root_of_the_line(phases: int) -> None:
    cores = np.array([64, 128, 256, 384, 512, 720])
    stages = [
        sum(len(phase.stages) for phase in reduction_phases(int(n), tree_group_sizes(int(n), phases)))
        for n in cores
    ]
    slope = np.polyfit(np.log(cores), np.log(stages), 1)[0]
    assert abs(slope - 1 / phases) <= 0.05
    assert all(n <= phases * c ** (1 / phases) / 2 + phases for n, c in zip(stages, cores, strict=True))


def test_groups_that_leave_several_sums_are_refused() -> None:
    with pytest.raises(ValueError, match=r"groups of 3 x 2 leave 2 sums of 8 cores"):
        reduction_phases(8, (3, 2))
    with pytest.raises(ValueError, match="at least one core"):
        reduction_phases(8, (0,))
    with pytest.raises(ValueError, match="at least one phase"):
        tree_group_sizes(8, 0)
