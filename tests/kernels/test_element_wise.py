"""Norms, rotary embedding, gated activation and embedding lookup against plain formulas."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.kernels import reference
from lapidist.kernels.activation import ACTIVATIONS, gated_activation
from lapidist.kernels.embedding import Embedding
from lapidist.kernels.norm import RMSNorm
from lapidist.kernels.rope import apply_rope

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
dtypes = st.sampled_from(list(TOLERANCES))
seeds = st.integers(0, 1 << 30)


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() <= TOLERANCES[found.dtype] * (1 + expected.abs().max())


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 9), st.integers(1, 70), st.sampled_from([0.0, 1.0]), st.booleans(), dtypes, seeds)
def test_rms_norm(
    rows: int, columns: int, offset: float, per_head: bool, dtype: torch.dtype, seed: int
) -> None:
    torch.manual_seed(seed)
    heads = (3,) if per_head else ()
    x, weight = (torch.randn(rows, *heads, columns) * 4).to(dtype), torch.randn(*heads, columns).to(dtype)
    found = RMSNorm(weight, 1e-5, offset)(x)
    assert found.dtype == dtype
    assert_close(found, reference.rms_norm(x, weight, 1e-5, offset))


def test_an_offset_keeps_the_bits_of_a_small_weight() -> None:
    weight = torch.full((64,), 1e-3, dtype=torch.bfloat16)  # 1.001 is no bfloat16 number
    x = torch.randn(4, 64, dtype=torch.bfloat16)
    exact = reference.rms_norm(x, weight, 1e-6, offset=1.0)
    assert torch.equal(RMSNorm(weight, 1e-6, offset=1.0)(x), exact.to(torch.bfloat16))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 20), st.integers(0, 3), dtypes, seeds)
def test_rope(tokens: int, heads: int, half: int, passing: int, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(tokens, heads, 2 * half + 2 * passing).to(dtype)
    angles = torch.rand(tokens, half) * 2 * math.pi
    cos, sin = angles.cos(), angles.sin()
    factors = torch.cat((cos, cos), -1)[:, None].to(dtype), torch.cat((-sin, sin), -1)[:, None].to(dtype)
    expected = reference.rope(x, angles)
    assert_close(apply_rope(x, *factors), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_gated_activation(activation: str, dtype: torch.dtype) -> None:
    gate_up = (torch.randn(5, 34) * 3).to(dtype)
    gate, up = gate_up.double().split(17, -1)
    normal = torch.distributions.Normal(0.0, 1.0)
    plain = {
        "silu": lambda x: x / (1 + (-x).exp()),
        "gelu": lambda x: x * normal.cdf(x),
        "gelu_pytorch_tanh": lambda x: x / 2 * (1 + ((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)).tanh()),
    }
    expected = plain[activation](gate) * up
    assert_close(gated_activation(gate_up, activation), expected)


def test_embedding_converts_what_it_looks_up() -> None:
    table = torch.randn(11, 6)
    found = Embedding(table, torch.bfloat16)(torch.tensor([3, 0, 3]))
    assert torch.equal(found, table[[3, 0, 3]].to(torch.bfloat16))
