"""Rows of the embedding table."""

import torch
import torch.nn.functional as F
from torch import Tensor


class Embedding:
    """Looks up rows of ``table`` ``[vocab_size, hidden_size]`` and gives them in ``dtype``.

    The table may be in another dtype, or mapped from a file: only the rows that are looked up are touched.
    """

    def __init__(self, table: Tensor, dtype: torch.dtype) -> None:
        self._table = table
        self._dtype = dtype

    def __call__(self, token_ids: Tensor) -> Tensor:
        """int64 ``[tokens]`` to ``[tokens, hidden_size]``."""
        return F.embedding(token_ids, self._table).to(self._dtype)
