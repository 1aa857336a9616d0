"""Lengths of context in classes: up to 128 tokens, then doubling."""

from collections.abc import Iterator

import torch
from torch import Tensor

FIRST = 128
COUNT = 24  # the last one ends at 2^30
_CHUNK_TOKENS = 512


def bucket_end(bucket: int) -> int:
    """The longest context of a bucket."""
    return FIRST << bucket


def bucket_name(bucket: int) -> str:
    return f"{bucket_end(bucket - 1) + 1 if bucket else 1}-{bucket_end(bucket)}"


def bucket_of(context: int) -> int:
    """The bucket of a token that sees so many, itself included."""
    return max(0, (context - 1) // FIRST).bit_length()


def buckets_of(contexts: Tensor) -> Tensor:
    """The same for an integer tensor, elementwise."""
    ends = FIRST << torch.arange(COUNT - 1, device=contexts.device)
    return torch.searchsorted(ends, contexts)


def chunks(length: int) -> Iterator[range]:
    """The positions of a sequence in parts that a forward pass takes, each of them inside one bucket."""
    start = 0
    while start < length:
        end = min(start + _CHUNK_TOKENS, bucket_end(bucket_of(start + 1)), length)
        yield range(start, end)
        start = end
