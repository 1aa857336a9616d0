"""GPTQ: each column's rounding error is made up for by the columns not yet rounded (arXiv 2210.17323).

With the two options that QServe uses: columns in the order of their activations' size, the largest first, and scales
that are fixed beforehand ("static groups"), so that the order does not matter to the format.
"""

import operator

import torch
from torch import Tensor

from lapidist.kernels.quantized_weight import QuantizedWeight
from lapidist.quantization.grid import Grid, Levels

DAMPING = 0.01
_RETRIES = 20


def gptq(weight: Tensor, hessian: Tensor, grid: Grid, damping: float = DAMPING) -> QuantizedWeight:
    """Round a matrix so that its outputs, rather than its weights, are near the original's.

    Parameters
    ----------
    weight : ``[outputs, inputs]``.
    hessian : ``[inputs, inputs]``, ``X^T X`` of activations ``X [tokens, inputs]``, in any scale.
    grid : made of the same weight.
    damping : added to the Hessian's diagonal, in units of its mean; doubled while the matrix is still singular.

    Raises
    ------
    ValueError : the Hessian is not finite, or not positive semidefinite.
    """
    order = hessian.diagonal().argsort(descending=True, stable=True)
    factor = _inverse_factor(hessian.float()[order][:, order], damping)
    # One row is one column of the weight from here on: what is read together lies together.
    rounding = _Rounding(
        remaining=weight.float().T[order],
        factor=factor,
        levels=grid.levels.map(lambda part: part.T.contiguous()),
        groups=(order // grid.group_size).tolist(),
    )
    rounding.round(0, len(order))
    return grid.pack(rounding.codes[order.argsort()].T)


class _Rounding:
    """Columns, as rows ``[inputs, outputs]``, in the order in which they are rounded."""

    def __init__(self, remaining: Tensor, factor: Tensor, levels: Levels, groups: list[int]) -> None:
        self.codes = torch.empty_like(remaining)
        self._errors = torch.empty_like(remaining)
        self._remaining = remaining
        self._factor = factor
        self._levels = levels
        self._groups = groups

    def round(self, first: int, last: int) -> None:
        """Round columns from ``first`` to before ``last``; those behind are brought up to date by the caller.

        Halving leaves most of the work to products of large matrices.
        """
        if last - first == 1:
            self._round_column(first)
            return
        middle = (first + last) // 2
        self.round(first, middle)
        self._remaining[middle:last].addmm_(
            self._factor[first:middle, middle:last].T, self._errors[first:middle], alpha=-1
        )
        self.round(middle, last)

    def _round_column(self, column: int) -> None:
        levels = self._levels.map(operator.itemgetter(self._groups[column]))
        values = self._remaining[column]
        codes = levels.nearest_codes(values)
        self.codes[column] = codes
        self._errors[column] = (values - levels.values(codes)) / self._factor[column, column]


def _inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """The upper triangular ``U`` with ``U^T U`` the inverse of the damped Hessian, which is changed.

    One factorization suffices: for the matrix in reversed order ``L L^T``, the inverse of ``L``, reversed, is ``U``.
    """
    if not hessian.isfinite().all():
        raise ValueError(
            "the Hessian of GPTQ has NaN or infinity: the activations of the calibration overflow"
        )
    diagonal = hessian.diagonal()
    mean = diagonal.mean()
    if mean == 0:
        mean = torch.ones_like(mean)
    # An input that is always zero says nothing; its weights are rounded to nearest.
    diagonal[diagonal == 0] = mean
    for retry in range(_RETRIES):
        # Each turn adds to what is there: the sum is damping * 2 ** retry.
        diagonal += mean * damping * 2 ** max(retry - 1, 0)
        lower, info = torch.linalg.cholesky_ex(hessian.flip(0, 1))
        if info == 0:
            identity = torch.eye(len(hessian), dtype=hessian.dtype, device=hessian.device)
            return torch.linalg.solve_triangular(lower, identity, upper=False).flip(0, 1)
    raise ValueError(
        f"the Hessian of GPTQ is not positive definite with a damping of {damping} and more: "
        "it must be X^T X of activations X"
    )
