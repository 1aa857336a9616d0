"""SmoothAttention: outlier channels of keys, which are cached in four bits, move to queries, which stay as they are.

QServe (arXiv 2405.04532), section 4.2. Keys are divided by scales and queries multiplied, which leaves their products
alone if both channels that rotary embedding turns into one another have one scale.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lapidist.quantization.block import BlockShape, BlockWeights
from lapidist.quantization.channel_scales import channel_scales
from lapidist.quantization.kv_heads import largest_per_kv_head, spread_over_heads

_STEPS = 20
EXPONENTS = (
    (0.0, 0.0),
    *((step / _STEPS, 0.0) for step in range(1, _STEPS)),
    *((step / _STEPS, 1 - step / _STEPS) for step in range(1, _STEPS)),
)
"""Of keys and of queries, which ``search_attention_smoothing`` tries."""


def smooth_attention(
    block: BlockWeights,
    shape: BlockShape,
    key_maxima: Tensor,
    alpha: float = 0.5,
    query_maxima: Tensor | None = None,
    beta: float = 0.0,
) -> BlockWeights:
    """Scale keys and queries by ``key_maxima ** alpha / query_maxima ** beta``.

    Parameters
    ----------
    key_maxima : ``[num_kv_heads, head_dim]``, the largest magnitude of each channel after rotary embedding.
    query_maxima : ``[num_heads, head_dim]``, likewise; of use if ``beta`` is not zero.
    """

    def tied(maxima: Tensor) -> Tensor:
        if block.k_norm is not None:
            # The weights of the norm are those of every head.
            maxima = maxima.amax(0, keepdim=True)
        return tie_rotary_pairs(maxima, shape.rotary_dim)

    queries = None if query_maxima is None else tied(largest_per_kv_head(query_maxima.flatten(), shape))
    return fold_attention_scales(block, shape, channel_scales(tied(key_maxima), alpha, queries, beta))


def search_attention_smoothing(
    block: BlockWeights,
    shape: BlockShape,
    key_maxima: Tensor,
    query_maxima: Tensor,
    objective: Callable[[BlockWeights], float],
) -> BlockWeights:
    """The block, smoothed with those of ``EXPONENTS`` for which ``objective`` is least, say the error of the output of
    attention over quantized keys."""
    candidates = (
        block if alpha == 0 else smooth_attention(block, shape, key_maxima, alpha, query_maxima, beta)
        for alpha, beta in EXPONENTS
    )
    return min(candidates, key=objective)


def tie_rotary_pairs(maxima: Tensor, rotary_dim: int) -> Tensor:
    """Of ``[..., head_dim]`` the larger for both channels of a pair, ``i`` and ``i + rotary_dim / 2``; channels past
    ``rotary_dim`` are not rotated and stay."""
    first, second, rest = maxima.split((rotary_dim // 2, rotary_dim // 2, maxima.shape[-1] - rotary_dim), -1)
    larger = first.maximum(second)
    return torch.cat((larger, larger, rest), -1)


def fold_attention_scales(block: BlockWeights, shape: BlockShape, scales: Tensor) -> BlockWeights:
    """Keys divided by scales and queries multiplied, in the rows of k and q, or in their norms where they have.

    Parameters
    ----------
    scales : ``[num_kv_heads, head_dim]``; ``[1, head_dim]`` where keys are normalized.
    """
    if block.q_norm is not None and block.k_norm is not None:
        (shared,) = scales
        return block.with_(q_norm=block.q_norm * shared, k_norm=block.k_norm / shared)
    q_rows, k_rows = spread_over_heads(scales, shape), scales.flatten()
    return block.with_(
        q=block.q * q_rows[:, None],
        k=block.k / k_rows[:, None],
        q_bias=None if block.q_bias is None else block.q_bias * q_rows,
        k_bias=None if block.k_bias is None else block.k_bias / k_rows,
    )
