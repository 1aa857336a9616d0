"""Counters that the kernels find at zero and leave at zero, so that no launch has to clear them."""

import torch
from torch import Tensor


class Workspace:
    """Tickets of the programs that share a result, and the count of recomputed attention rows.

    One workspace serves calls that run one after another: those of one stream, or of one CUDA graph.

    Parameters
    ----------
    tickets : the most results that one call splits; ``paged_attention`` needs ``(tokens + sequences) * kv_heads`` at
        most, ``flat_linear`` ``out_features / 16``.
    """

    def __init__(self, tickets: int, device: torch.device | str) -> None:
        self._counters = torch.zeros(1 + tickets, dtype=torch.int64, device=device)

    @property
    def recomputed(self) -> Tensor:
        """int64 ``[]``: rows that failed the guard of mode unified since the workspace was made or this was zeroed."""
        return self._counters[0]

    def counters(self, tickets: int) -> Tensor:
        """int64 ``[1 + tickets]`` or more: the count of recomputed rows, then zeros.

        Raises
        ------
        ValueError : the workspace holds fewer.
        """
        if tickets >= len(self._counters):
            raise ValueError(
                f"the workspace has {len(self._counters) - 1} tickets and the call needs {tickets}: make a larger one"
            )
        return self._counters
