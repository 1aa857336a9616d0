import itertools

import numpy as np
import pytest

from lapidist.hardware.wafer.line import ring_flows
from lapidist.hardware.wafer.ring import (
    alignment_turns,
    interleaved_colours,
    receive_from,
    ring_order,
    ring_position,
    send_to,
)

SIZES = [*range(3, 257), 360, 375, 420, 480, 540, 600, 660, 720, 750]


def published_send(place: int, size: int) -> int:
    """WaferLLM, algorithm 1: even places send two up, odd places two down, the ends to their neighbour."""
    if place % 2 == 0:
        if place + 2 < size:
            return place + 2
        return place + 1 if place == size - 2 else place - 1
    return 0 if place == 1 else place - 2


def test_five_cores_as_in_the_paper() -> None:
    assert ring_order("interleaved", 5).tolist() == [0, 2, 4, 3, 1]
    assert send_to("interleaved", 5)[2] == 4
    assert receive_from("interleaved", 5)[2] == 0


@pytest.mark.parametrize("size", SIZES)
def test_the_interleaved_ring_is_one_cycle_with_an_inverse(size: int) -> None:
    send, receive = send_to("interleaved", size), receive_from("interleaved", size)
    assert send.tolist() == [published_send(place, size) for place in range(size)]
    assert np.array_equal(receive[send], np.arange(size))
    visited, place = [], 0
    for _ in range(size):
        visited.append(place)
        place = int(send[place])
    assert place == 0
    assert sorted(visited) == list(range(size))
    places = np.arange(size)
    assert np.array_equal(ring_order("interleaved", size)[ring_position("interleaved", size)], places)
    even = places % 2 == 0
    assert np.array_equal(
        ring_position("interleaved", size), np.where(even, places // 2, size - (places + 1) // 2)
    )


@pytest.mark.parametrize("size", SIZES)
def test_no_message_goes_farther_than_two_hops_and_every_link_carries_one_each_way(size: int) -> None:
    flows = ring_flows("interleaved", size, size)
    assert flows.hops == 2
    upward, downward = flows.link_loads
    assert np.all(upward == 1)
    assert np.all(downward == 1)


@pytest.mark.parametrize("size", range(3, 9))
def test_no_ring_on_a_line_has_only_neighbours(size: int) -> None:
    """Two hops are the best there is: any ring over a line of three or more cores has a hop of two."""
    longest = [
        max(abs(a - b) for a, b in zip(ring, (*ring[1:], ring[0]), strict=True))
        for ring in ((0, *rest) for rest in itertools.permutations(range(1, size)))
    ]
    assert min(longest) == 2


def test_rings_of_one_and_two_cores() -> None:
    assert ring_flows("interleaved", 2, 2).hops == 1
    assert send_to("interleaved", 2).tolist() == [1, 0]
    assert ring_flows("interleaved", 1, 1).hops == 0
    with pytest.raises(ValueError, match="at least one core"):
        ring_order("interleaved", 0)


@pytest.mark.parametrize("size", range(3, 65))
def test_three_colours_never_meet_at_a_core(size: int) -> None:
    send, colours = send_to("interleaved", size), interleaved_colours(size)
    at_core: list[list[int]] = [[] for _ in range(size)]
    for source, target in enumerate(send):
        for core in range(min(source, target), max(source, target) + 1):
            at_core[core].append(int(colours[source]))
    assert all(len(set(found)) == len(found) <= 3 for found in at_core)
    assert [len(found) for found in at_core] == ring_flows("interleaved", size, size).touching.tolist()
    assert colours[1] == 0
    ends = [source for source in range(size) if {source, int(send[source])} == {size - 1, size - 2}]
    assert [int(colours[source]) for source in ends] == [(size - 1) % 3]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 16, 33, 720])
def test_alignment_turns_bring_the_block_that_is_multiplied_first(size: int) -> None:
    for kind in ("interleaved", "cyclic"):
        turns, position, order = (
            alignment_turns(kind, size),
            ring_position(kind, size),
            ring_order(kind, size),
        )
        assert np.abs(turns).max() <= size // 2
        for line in range(min(size, 9)):
            came_from = send_to(kind, size, -int(turns[line]))
            assert np.array_equal(came_from, order[(position + position[line]) % size])


def test_alignment_directions_of_the_interleaved_ring() -> None:
    """Even rows turn backward half their number of times, odd rows forward half of one more."""
    turns = alignment_turns("interleaved", 13)
    assert turns[0::2].tolist() == [-(row // 2) for row in range(0, 13, 2)]
    assert turns[1::2].tolist() == [(row + 1) // 2 for row in range(1, 13, 2)]


@pytest.mark.parametrize(("cores", "per_core"), [(2, 2), (3, 2), (4, 3), (5, 7), (6, 1)])
def test_several_slots_on_a_core_stay_within_two_hops(cores: int, per_core: int) -> None:
    flows = ring_flows("interleaved", cores, cores * per_core)
    assert flows.hops <= 2
    assert flows.sent.max() <= 2
