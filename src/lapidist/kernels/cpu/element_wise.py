"""Normalization, rotary embedding and the gated activation in the native library."""

import torch
from torch import Tensor

from lapidist.kernels.cpu.library import TYPES, native, with_whole_rows


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension, in a new tensor.

    Parameters
    ----------
    x : ``[tokens, columns]`` or ``[tokens, heads, columns]``; the tokens may lie apart.
    weight : float32 ``[columns]``, or ``[heads, columns]``.
    """
    shape = x.shape
    x = with_whole_rows(x[:, None] if x.dim() == 2 else x)
    y = torch.empty(shape, dtype=x.dtype)
    tokens, heads, columns = x.shape
    native().rms_norm(
        TYPES[x.dtype],
        x.data_ptr(),
        x.stride(0),
        weight.data_ptr(),
        weight.dim() == 2,
        y.data_ptr(),
        tokens,
        heads,
        columns,
        eps,
        torch.get_num_threads(),
    )
    return y


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """See ``lapidist.kernels.rope.apply_rope``; in place where the heads of a token lie side by side."""
    x = with_whole_rows(x)
    tokens, heads, head_dim = x.shape
    native().rope(
        TYPES[x.dtype],
        x.data_ptr(),
        x.stride(0),
        cos.contiguous().data_ptr(),
        sin.contiguous().data_ptr(),
        tokens,
        heads,
        head_dim,
        cos.shape[-1],
        torch.get_num_threads(),
    )
    return x


def silu_multiply(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up`` of ``[tokens, 2 * columns]``, the gate first, in a new tensor."""
    gate_up = gate_up.contiguous()
    tokens, columns = gate_up.shape[0], gate_up.shape[1] // 2
    y = torch.empty(tokens, columns, dtype=gate_up.dtype)
    native().silu_multiply(
        TYPES[gate_up.dtype], gate_up.data_ptr(), y.data_ptr(), tokens, columns, torch.get_num_threads()
    )
    return y
