"""What an error in the weights of a linear layer does to its outputs: the objective of clipping and of AWQ.

Both functions here give a function from errors of weights, ``[outputs, inputs]``, to squared errors of outputs, summed
over the calibration tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor

OutputError = Callable[[Tensor], Tensor]
"""From ``[outputs, inputs]`` to ``[outputs, groups]``."""


def error_of_groups(hessian: Tensor, group_size: int) -> OutputError:
    """For each group of columns as if it were alone, as AWQ (arXiv 2306.00978) clips; no activations are needed.

    Parameters
    ----------
    hessian : ``[inputs, inputs]``, ``X^T X`` of activations ``X``, of which only diagonal blocks are used. A group of
        all columns takes ``2 outputs inputs^2`` operations: ``error_of_outputs`` over a sample of tokens is cheaper.
    """
    spans = torch.arange(len(hessian)).split(group_size)
    blocks = [hessian[span[0] : span[-1] + 1, span[0] : span[-1] + 1] for span in spans]

    def error(difference: Tensor) -> Tensor:
        parts = zip(difference.split(group_size, dim=1), blocks, strict=True)
        return torch.stack([((part @ block) * part).sum(1) for part, block in parts], 1)

    return error


def error_of_outputs(inputs: Tensor) -> OutputError:
    """For each output, in one group.

    Parameters
    ----------
    inputs : ``[tokens, inputs]``, a sample of activations.
    """
    return lambda difference: (difference @ inputs.T).square().sum(1, keepdim=True)
