"""How many parts the work is split into: plain arithmetic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.kernels.triton.splits import num_splits, split_keys

sizes = st.integers(1, 3000)


@pytest.mark.parametrize(
    ("programs", "blocks", "slots", "expected"),
    [
        (106, 1000, 132, 1),  # 80 % of the slots are busy
        (1, 4, 132, 1),  # too short
        (0, 1000, 132, 1),
        (8, 1000, 132, 15),  # 120 of 132 slots; 16 would take 128, no more than 15 % better
        (1, 8, 132, 8),
        (66, 1000, 132, 2),
        (67, 1000, 132, 7),  # with two, a second wave of programs would be two; 469 of 528 slots
    ],
)
def test_the_rule(programs: int, blocks: int, slots: int, expected: int) -> None:
    assert num_splits(programs, blocks, slots) == expected


@given(programs=sizes, blocks=sizes, slots=sizes)
def test_no_part_is_empty(programs: int, blocks: int, slots: int) -> None:
    splits = num_splits(programs, blocks, slots)
    assert 1 <= splits <= max(1, min(blocks, slots, 128))
    longest = -(-blocks // splits)
    assert splits == 1 or -(-blocks // (splits - 1)) > longest


def test_a_gpu_without_slots_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one program"):
        num_splits(1, 100, 0)


def test_long_sequences_are_split_though_the_gpu_is_busy() -> None:
    splits = split_keys(1000, 640, 264, longest_blocks=64, most_splits=100)
    assert (splits.count, splits.least_blocks) == (10, 64)


def test_an_idle_gpu_gets_parts_of_any_length() -> None:
    splits = split_keys(8, 16, 264, longest_blocks=64, most_splits=100)
    assert (splits.count, splits.least_blocks) == (16, 1)


@given(programs=sizes, blocks=sizes, slots=sizes, most=st.integers(0, 50))
def test_memory_limits_the_parts(programs: int, blocks: int, slots: int, most: int) -> None:
    splits = split_keys(programs, blocks, slots, longest_blocks=32, most_splits=most)
    assert 1 <= splits.count <= max(1, most)
