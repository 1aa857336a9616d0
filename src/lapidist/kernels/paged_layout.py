"""Where the tokens of each sequence sit in one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class PagedLayout:
    """Sequences of a batch, their new tokens concatenated, their context in pages of the KV cache.

    Attributes
    ----------
    slots : int64 ``[tokens]``, page times page size plus offset, where each new token's key and value go.
    query_starts : int32 ``[sequences + 1]``, prefix sums of the numbers of new tokens.
    kv_lengths : int32 ``[sequences]``, tokens of context after this pass, the new ones included.
    page_table : int32 ``[sequences, pages]``, the pages that hold a sequence's tokens in order; the rest is padding.
    max_query_length : the largest number of new tokens of a sequence.
    """

    slots: Tensor
    query_starts: Tensor
    kv_lengths: Tensor
    page_table: Tensor
    max_query_length: int

    @classmethod
    def build(
        cls,
        slots: Sequence[int],
        query_lengths: Sequence[int],
        kv_lengths: Sequence[int],
        pages: Sequence[Sequence[int]],
        device: torch.device | str = "cpu",
    ) -> "PagedLayout":
        """From plain numbers; of ``pages[i]`` the first ones that ``kv_lengths[i]`` tokens take must be there."""
        table = np.zeros((len(pages), max(map(len, pages), default=0)), dtype=np.int32)
        for row, own in zip(table, pages, strict=True):
            row[: len(own)] = own
        return cls(
            slots=torch.tensor(slots, dtype=torch.long, device=device),
            query_starts=torch.tensor([0, *accumulate(query_lengths)], dtype=torch.int32, device=device),
            kv_lengths=torch.tensor(kv_lengths, dtype=torch.int32, device=device),
            page_table=torch.from_numpy(table).to(device),
            max_query_length=max(query_lengths, default=0),
        )
