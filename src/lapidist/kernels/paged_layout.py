"""Where the tokens of each sequence sit in one forward pass."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class PagedLayout:
    """Sequences of a batch, their new tokens concatenated, their context in pages of the KV cache.

    Attributes
    ----------
    slots : int64 ``[tokens]``, page times page size plus offset, where each new token's key and value go.
    query_starts : ``sequences + 1`` prefix sums of the numbers of new tokens.
    kv_lengths : tokens of context of each sequence after this pass, the new ones included.
    page_ids : for each sequence, int64, the pages that hold its first ``kv_length`` tokens in order.
    """

    slots: Tensor
    query_starts: tuple[int, ...]
    kv_lengths: tuple[int, ...]
    page_ids: tuple[Tensor, ...]

    @cached_property
    def decode_groups(self) -> dict[int | None, tuple[Any, ...]]:
        """By window: ``decode_attention``'s plan for this pass, which all layers share."""
        return {}

    @cached_property
    def first_pages(self) -> tuple[int | None, ...]:
        """The first page of each sequence whose pages follow one another in memory; None for the others."""
        return tuple(_first_of_run(pages.tolist()) for pages in self.page_ids)


def _first_of_run(pages: list[int]) -> int | None:
    return pages[0] if pages == list(range(pages[0], pages[0] + len(pages))) else None
