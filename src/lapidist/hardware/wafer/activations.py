"""Activations of gated feed-forward blocks, of tiles of any shape."""

from collections.abc import Callable

import numpy as np
from scipy.special import erf

from lapidist.hardware.wafer.placement import Array


def silu(x: Array) -> Array:
    """``x sigmoid(x)``."""
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def gelu(x: Array) -> Array:
    """``x Phi(x)`` with the normal distribution itself."""
    half = x.dtype.type(0.5)
    return half * x * (1 + erf(x * x.dtype.type(0.5**0.5)).astype(x.dtype))


def gelu_pytorch_tanh(x: Array) -> Array:
    """GELU by a hyperbolic tangent (arXiv 1606.08415), as Gemma has it."""
    number = x.dtype.type
    inner = number((2 / np.pi) ** 0.5) * (x + number(0.044715) * x * x * x)
    return number(0.5) * x * (1 + np.tanh(inner))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": silu,
    "gelu": gelu,
    "gelu_pytorch_tanh": gelu_pytorch_tanh,
}
"""By their names in Hugging Face configurations."""
