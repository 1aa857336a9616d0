"""Packed weights are what was packed: nibbles, and the order in which the native library reads them."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lapidist.kernels.cpu.quantized_linear import pack_weight
from lapidist.kernels.quantized_weight import GROUP_SIZE, QuantizedWeight, pack_nibbles, unpack_nibbles
from tests.kernels.random_quantized_weight import FORMS, random_weight
from tests.kernels.thread_count import thread_count

seeds = st.integers(0, 1 << 30)
columns_strategy = st.one_of(st.integers(1, 20), st.sampled_from([127, 128, 129, 255, 256, 257, 300, 384]))
outputs_strategy = st.one_of(st.integers(1, 9), st.sampled_from([63, 64, 65, 130]))


@settings(deadline=None)
@given(st.integers(0, 9), st.integers(1, 40), seeds)
def test_nibbles(rows: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    codes = torch.randint(0, 16, (rows, columns), dtype=torch.uint8)
    packed = pack_nibbles(codes)
    assert packed.shape == (rows, (columns + 1) // 2)
    assert torch.equal(unpack_nibbles(packed, columns), codes)
    assert torch.equal(packed & 15, codes[:, ::2])


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=30))
def test_every_byte_is_two_nibbles(content: bytes) -> None:
    packed = torch.tensor(list(content), dtype=torch.uint8)[None]
    assert torch.equal(pack_nibbles(unpack_nibbles(packed, 2 * len(content))), packed)


def test_a_code_over_15() -> None:
    with pytest.raises(ValueError, match="from 0 to 15, got 16"):
        pack_nibbles(torch.tensor([[3, 16]], dtype=torch.uint8))


def test_a_word_of_four_codes_times_a_group_scale() -> None:
    """The codes stay in their bytes for scales up to 17 (QServe, section 5.2.3); 18 carries into a neighbour."""
    codes = torch.tensor(list(product(range(16), repeat=4)))
    powers = 256 ** torch.arange(4)
    words = (codes * powers).sum(1)
    for scale in range(19):
        product_bytes = (words[:, None] * scale // powers) % 256
        assert torch.equal(product_bytes, codes * scale) == (scale <= 17)


@pytest.mark.parametrize("form", FORMS)
def test_dequantized_as_the_formula_says(form: str) -> None:
    weight = random_weight(form, 5, 300)
    found, codes = weight.dequantize(), weight.unpacked_codes()
    for n, k in product(range(5), (0, 1, 127, 128, 255, 256, 299)):
        integer = codes[n, k].item()
        if weight.group_scales is not None and weight.group_zeros is not None:
            integer = (
                integer * weight.group_scales[n, k // GROUP_SIZE].item()
                - weight.group_zeros[n, k // GROUP_SIZE].item()
            )
            assert -128 <= integer <= 127
        expected = integer * weight.scales[n].item() - (0 if weight.zeros is None else weight.zeros[n].item())
        assert found[n, k].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def unpacked(packed: Tensor, form: str, outputs: int, columns: int, bias: Tensor) -> QuantizedWeight:
    """What ``pack_weight`` packed, from the order that ``native/quantized_linear.cpp`` describes."""
    panels, steps = len(packed), -(-columns // 8)
    floats = packed[:, -(3 if form == "channel" else 2) * 256 :].contiguous().view(torch.float32)
    scales, *zeros, biases = floats.reshape(panels, -1, 64).unbind(1)
    assert torch.equal(biases.flatten()[:outputs], bias)
    assert not biases.flatten()[outputs:].any()
    body = packed[:, : packed.shape[1] - floats.shape[1] * 4]
    parameters: list[Tensor] = []
    if form == "8 bits":
        codes = (body.reshape(panels, 2 * steps, 64, 4).int() - 128).to(torch.int8).transpose(1, 2)
        return QuantizedWeight(
            8, columns, codes.reshape(panels * 64, -1)[:outputs, :columns], scales.flatten()[:outputs].half()
        )
    if form == "groups":
        groups = [body[:, start : start + 4096 + 128] for start in range(0, body.shape[1], 4096 + 128)]
        parameters = [
            torch.stack([group[:, end - 128 :][:, part] for group in groups for end in [group.shape[1]]], -1)
            for part in (slice(0, 64), slice(64, 128))
        ]
        body = torch.cat([group[:, :-128] for group in groups], 1)
    nibbles = body.reshape(panels, steps, 64, 4)
    codes = torch.stack((nibbles & 15, nibbles >> 4), 3).transpose(1, 2).reshape(panels * 64, -1)
    assert not codes[:outputs, columns:].any()
    return QuantizedWeight(
        4,
        columns,
        pack_nibbles(codes[:outputs, :columns]),
        scales.flatten()[:outputs].half(),
        zeros=zeros[0].flatten()[:outputs].half() if zeros else None,
        group_scales=parameters[0].flatten(0, 1)[:outputs] if parameters else None,
        group_zeros=parameters[1].flatten(0, 1)[:outputs].contiguous().view(torch.int8)
        if parameters
        else None,
    )


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(FORMS), outputs_strategy, columns_strategy, seeds)
def test_the_kernels_layout(isa: str, form: str, outputs: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    weight, bias = random_weight(form, outputs, columns), torch.randn(outputs)
    packed = pack_weight(weight, bias)
    found = unpacked(packed, form, outputs, columns, bias)
    for name in ("codes", "scales", "zeros", "group_scales", "group_zeros"):
        part, expected = getattr(found, name), getattr(weight, name)
        assert expected is None if part is None else torch.equal(part, expected)
    with thread_count(3):
        assert torch.equal(pack_weight(weight, bias), packed)
