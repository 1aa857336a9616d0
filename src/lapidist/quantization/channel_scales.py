"""Scales that move magnitude from a layer's inputs to its weights, one for each input channel."""

from torch import Tensor

# A channel this far from the mean is one that calibration hardly saw, and what it did not see must not blow up.
_LARGEST = 1e4


def channel_scales(
    activations: Tensor, alpha: float, weights: Tensor | None = None, beta: float = 0.0
) -> Tensor:
    """``activations ** alpha / weights ** beta``: inputs are to be divided by it and weights multiplied.

    Scales have a geometric mean of one along the last dimension: only their ratios matter to a quantizer. They are kept
    within four orders of magnitude; a channel whose activations or weights are all zero gets one.

    Parameters
    ----------
    activations, weights : ``[..., channels]``, magnitudes of a channel's activations and weights.

    References
    ----------
    SmoothQuant (arXiv 2211.10438), equation 4, which has ``beta = 1 - alpha``.
    """
    exponents = alpha * activations.log()
    alive = activations > 0
    if weights is not None:
        exponents = exponents - beta * weights.log()
        alive = alive & (weights > 0)
    exponents = exponents.where(alive, 0.0)
    mean = exponents.sum(-1, keepdim=True) / alive.sum(-1, keepdim=True).clamp(min=1)
    return (exponents - mean).exp().clamp(1 / _LARGEST, _LARGEST).where(alive, 1.0)


def column_maxima(*matrices: Tensor) -> Tensor:
    """``[inputs]``: the largest magnitude in each column of matrices ``[outputs, inputs]`` that share their inputs."""
    largest = matrices[0].abs().amax(0)
    for matrix in matrices[1:]:
        largest = largest.maximum(matrix.abs().amax(0))
    return largest
