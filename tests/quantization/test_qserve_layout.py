"""QServe's layout, against a packer that goes element by element, and against what its GPU kernel reads from it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lapidist.quantization.qserve_layout import from_channels, from_groups, unpack_codes, unpack_groups
from tests.quantization.qserve_checkpoints import pack_codes, pack_groups, random_channels, random_groups

seeds = st.integers(0, 2**31 - 1)


def kernel_integers(qweight: Tensor, s2_scales: Tensor, s2_zeros: Tensor) -> Tensor:
    """What the lanes of the matrix instruction m16n8k32 are given.

    Each lane loads 16 bytes and takes four bits of each of four words of 4 weights, twice: the low ones belong to the
    first 16 rows of the block, the high ones to the others. Lane ``l`` holds row ``l / 4`` of an operand of 8 rows
    and columns ``4 (l % 4)`` to ``4 (l % 4) + 3`` of each half of 16.
    """
    rows, columns = qweight.shape[0], 2 * qweight.shape[1]
    data = qweight.view(torch.uint8).flatten().tolist()
    integers = torch.zeros(rows, columns, dtype=torch.int64)
    for block in range(rows * columns // 1024):
        row_block, column_block = divmod(block, columns // 32)
        for lane in range(32):
            loaded = data[512 * block + 16 * lane :][:16]
            words = [loaded[4 * word : 4 * word + 4] for word in range(4)]
            for operand in range(4):  # of 8 rows each
                place = 32 * row_block + 4 * (lane // 4) + operand
                scale = int(s2_scales[32 * column_block // 128, place])
                zero = int(s2_zeros[32 * column_block // 128, place])
                for half in range(2):
                    for byte, value in enumerate(words[2 * half + operand % 2]):
                        code = value >> 4 if operand >= 2 else value & 15
                        row = 32 * row_block + 8 * operand + lane // 4
                        column = 32 * column_block + 16 * half + 4 * (lane % 4) + byte
                        integers[row, column] = (code * scale + zero + 128) % 256 - 128
    return integers


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), seeds)
def test_codes_come_out_in_order(row_blocks: int, column_blocks: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(16, (32 * row_blocks, 32 * column_blocks), generator=generator, dtype=torch.uint8)
    assert torch.equal(unpack_codes(pack_codes(codes)), codes)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), seeds)
def test_group_parameters_come_out_in_order(row_blocks: int, groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.randint(-128, 128, (32 * row_blocks, groups), generator=generator, dtype=torch.int8)
    assert torch.equal(unpack_groups(pack_groups(parameters)), parameters)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 2), st.integers(1, 3), seeds)
def test_groups_are_exact(row_blocks: int, groups: int, seed: int) -> None:
    torch.manual_seed(seed)
    matrix = random_groups(32 * row_blocks, 128 * groups)
    weight = from_groups(**matrix.tensors)
    assert torch.equal(weight.integers().long(), matrix.integers)
    assert torch.equal(weight.dequantize(), matrix.weight)
    kernel = kernel_integers(*(matrix.tensors[name] for name in ("qweight", "s2_scales", "s2_zeros")))
    assert torch.equal(weight.integers().long(), kernel)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), seeds)
def test_channels_are_exact(row_blocks: int, column_blocks: int, seed: int) -> None:
    torch.manual_seed(seed)
    matrix = random_channels(32 * row_blocks, 32 * column_blocks)
    weight = from_channels(**matrix.tensors)
    assert torch.equal(weight.integers().long(), matrix.integers)
    assert torch.equal(weight.dequantize(), matrix.weight)


@pytest.mark.parametrize("scale", range(1, 17))
def test_every_zero_of_the_paper(scale: int) -> None:
    """There the zero is a code from 0 to 15, stored times the scale: up to 240. Integers stay within 127."""
    for zero in range(16):
        codes = torch.arange(16)[(torch.arange(16) - zero).mul(scale).abs() <= 127].repeat(128)[:128]
        packed = pack_codes(codes.expand(32, -1))
        scales, zeros = torch.full((32, 1), scale), torch.full((32, 1), -zero * scale)
        weight = from_groups(packed, torch.ones(32).half(), pack_groups(scales), pack_groups(zeros))
        assert torch.equal(weight.integers()[7].long(), (codes - zero) * scale)


def one_group(codes: list[int], scale: int, zero: int) -> dict[str, Tensor]:
    """32 rows of a group. Row 9 has these codes, this scale and stored zero; the others are zeros."""
    all_codes = torch.zeros(32, 128, dtype=torch.int64)
    all_codes[9] = torch.tensor(codes).repeat(128)[:128]
    scales, zeros = torch.ones(32, 1, dtype=torch.int64), torch.zeros(32, 1, dtype=torch.int64)
    scales[9], zeros[9] = scale, zero
    return {
        "qweight": pack_codes(all_codes),
        "s1_scales": torch.ones(32).half(),
        "s2_scales": pack_groups(scales),
        "s2_zeros": pack_groups(zeros),
    }


@pytest.mark.parametrize(
    ("codes", "scale", "zero", "problem"),
    [
        ([0, 1], 0, 5, "scale that is not from 1 to 17"),
        ([0, 1], 18, 5, "scale that is not from 1 to 17"),
        ([0, 1], 1, -128, "integer of -128"),
        ([0, 15], 9, 0, "overflow"),
    ],
)
def test_what_cannot_be_represented(codes: list[int], scale: int, zero: int, problem: str) -> None:
    with pytest.raises(ValueError, match=f"group 0 of row 9 has .*{problem}.*cannot be represented"):
        from_groups(**one_group(codes, scale, zero))


def test_the_extremes_that_can_be_represented() -> None:
    for codes, scale, zero, expected in (
        ([15, 1], 17, -128, [127, -111]),
        ([8, 15], 16, -255, [-127, -15]),
        ([0, 14], 1, 113, [113, 127]),
        ([0, 15], 1, -127, [-127, -112]),
    ):
        weight = from_groups(**one_group(codes, scale, zero))
        assert weight.integers()[9, :2].tolist() == expected
