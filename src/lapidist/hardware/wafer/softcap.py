"""Soft caps of attention scores and logits (Gemma-2, arXiv 2408.00118)."""

import numpy as np

from lapidist.hardware.wafer.placement import Array


def softcap(x: Array, cap: float) -> Array:
    """``cap tanh(x / cap)``, in the type of ``x``."""
    number = x.dtype.type(cap)
    return np.asarray(number * np.tanh(x / number))
