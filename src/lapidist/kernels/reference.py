"""What each operator computes, written down plainly in float64: the truth that fast kernels are tested against."""

import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import QuantizedWeight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x W^T + b``: ``[rows, in_features]`` to ``[rows, out_features]``."""
    y = x.double() @ weight.double().T
    return y if bias is None else y + bias.double()


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 ``[rows, columns]`` and scales float32 ``[rows]``: ``max|x| / 127``, and no subnormal number."""
    scales = (x.float().abs().amax(1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (x.float() / scales[:, None]).round().to(torch.int8), scales


def quantized_sums(codes: Tensor, weight: QuantizedWeight) -> Tensor:
    """int64 ``[rows, out_features]``: codes ``[rows, in_features]`` times the integers of the weight."""
    return codes.long() @ weight.integers().long().T


def quantized_linear(
    codes: Tensor, scales: Tensor, weight: QuantizedWeight, bias: Tensor | None = None
) -> Tensor:
    """``x W^T + b`` of what the integers stand for."""
    exact = weight.integers().double() * weight.scales.double()[:, None]
    if weight.zeros is not None:
        exact -= weight.zeros.double()[:, None]
    return linear(codes.double() * scales.double()[:, None], exact, bias)


def rms_norm(x: Tensor, weight: Tensor, eps: float, offset: float = 0.0) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * (weight + offset)`` over the last dimension."""
    x = x.double()
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * (weight.double() + offset)


def rope(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate channel ``i`` with channel ``i + rotary_dim / 2`` by ``angles`` ``[tokens, rotary_dim / 2]``.

    ``x`` is ``[tokens, heads, head_dim]``; channels from ``rotary_dim`` on pass.
    """
    x = x.double()
    half = angles.shape[-1]
    cos, sin = angles.double().cos()[:, None], angles.double().sin()[:, None]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), -1)


def attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Causal attention of one sequence's last tokens over all of it.

    Parameters
    ----------
    query : ``[queries, heads, head_dim]``, the last tokens.
    keys, values : ``[kv, kv_heads, head_dim]``.

    Returns
    -------
    float64 ``[queries, heads, head_dim]``
    """
    group = query.shape[1] // keys.shape[1]
    keys, values = (tensor.double().repeat_interleave(group, 1) for tensor in (keys, values))
    scores = torch.einsum("qhd,khd->hqk", query.double(), keys) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    key_positions = torch.arange(len(keys))
    query_positions = key_positions[len(keys) - len(query) :, None]
    hidden = key_positions > query_positions
    if window is not None:
        hidden |= key_positions <= query_positions - window
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, values)
