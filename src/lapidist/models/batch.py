"""What one forward pass computes."""

from dataclasses import dataclass

from torch import Tensor

from lapidist.kernels.paged_layout import PagedLayout


@dataclass(frozen=True)
class Batch:
    """New tokens of several sequences, concatenated.

    Attributes
    ----------
    token_ids, positions : int64 ``[tokens]``.
    rope_lengths : int64 ``[tokens]``, the sequence length that length-dependent RoPE scaling (dynamic,
        longrope) sees: the larger of the request's prompt length and the token's position plus one. It does
        not depend on how the prompt was cut into chunks.
    layout : where each sequence's tokens sit in the KV cache.
    """

    token_ids: Tensor
    positions: Tensor
    rope_lengths: Tensor
    layout: PagedLayout
