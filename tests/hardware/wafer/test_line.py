import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.wafer.line import Flows, Line, multicast_flows, ring_flows
from lapidist.hardware.wafer.reduction_tree import reduction_phases, tree_group_sizes


def colours_needed(flows: Flows) -> int:
    """Colours that a greedy assignment gives, when no two flows of a colour meet at a router."""
    spans = sorted((int(min(pair)), int(max(pair))) for pair in zip(flows.source, flows.target, strict=True))
    last_core_of_colour: list[int] = []
    for first, last in spans:
        free = next((c for c, end in enumerate(last_core_of_colour) if end < first), None)
        if free is None:
            last_core_of_colour.append(last)
        else:
            last_core_of_colour[free] = last
    return len(last_core_of_colour)


messages = st.integers(1, 30).flatmap(
    lambda cores: st.tuples(
        st.just(cores),
        st.lists(
            st.tuples(st.integers(0, cores - 1), st.integers(0, cores - 1)).filter(lambda p: p[0] != p[1]),
            min_size=0 if cores == 1 else 1,
            max_size=0 if cores == 1 else 20,
        ),
    )
)


@given(messages)
def test_flows_are_counted_where_they_pass(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    cores, pairs = drawn
    source, target = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    flows = Flows(source, target, cores)
    touching = [0] * cores
    for a, b in pairs:
        for core in range(min(a, b), max(a, b) + 1):
            touching[core] += 1
    assert flows.touching.tolist() == touching
    assert flows.sent.sum() == flows.received.sum() == len(pairs)
    upward, downward = flows.link_loads
    assert upward.sum() + downward.sum() == sum(abs(a - b) for a, b in pairs)
    assert flows.hops == max((abs(a - b) for a, b in pairs), default=0)


@given(messages)
def test_as_many_colours_as_meet_at_the_busiest_core_suffice(
    drawn: tuple[int, list[tuple[int, int]]],
) -> None:
    """Flows on a line are intervals, so the count at one core is not only a bound but what it takes."""
    cores, pairs = drawn
    source, target = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    flows = Flows(source, target, cores)
    assert colours_needed(flows) == flows.touching.max()


@pytest.mark.parametrize("cores", [2, 3, 16, 97, 720])
def test_colours_of_known_patterns(cores: int) -> None:
    assert colours_needed(ring_flows("interleaved", cores, cores)) <= 3
    assert colours_needed(ring_flows("cyclic", cores, cores)) <= 3
    for phase in reduction_phases(cores, tree_group_sizes(cores, 2)):
        assert colours_needed(phase.flows) <= 4
    assert colours_needed(multicast_flows(cores, cores // 2)) <= 2


def test_slots_and_groups_of_a_line() -> None:
    line = Line("x", 4, 12, groups=2, used=2)
    assert (line.slots_per_core, line.extent) == (3, 8)
    assert line.used_slots.tolist() == [0, 1, 3, 4, 6, 7, 9, 10]
    assert Line("y", 5).slots == 5
    for wrong in ({"cores": 0}, {"cores": 4, "slots": 6}, {"cores": 4, "groups": 0}, {"cores": 2, "used": 2}):
        with pytest.raises(ValueError, match="a line needs"):
            Line("x", **wrong)
