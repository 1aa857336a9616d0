"""Random batches of sequences in scattered pages, for the tests of paged attention."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.kernels import reference
from lapidist.kernels.paged_layout import PagedLayout

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Batch:
    """Arguments of ``paged_attention`` on the device, and the keys and values of each sequence laid out plainly."""

    query: Tensor
    keys: Tensor
    values: Tensor
    layout: PagedLayout
    plain: list[tuple[Tensor, Tensor]]

    def expected(self, scale: float, window: int | None = None, softcap: float | None = None) -> Tensor:
        """float64 ``[tokens, heads, head_dim]``."""
        starts = self.layout.query_starts.tolist()
        query = self.query.cpu()
        found = [
            reference.attention(query[starts[i] : starts[i + 1]], keys, values, scale, window, softcap)
            for i, (keys, values) in enumerate(self.plain)
        ]
        return torch.cat(found) if found else query.double()


def build(query: Tensor, plain: list[tuple[Tensor, Tensor]], counts: list[int], page_size: int) -> Batch:
    """Put sequences into random pages; the rest of the cache and of the page table is unfit for use.

    Parameters
    ----------
    query : ``[tokens, heads, head_dim]``, the sequences' new tokens one after another.
    plain : keys and values of each sequence, ``[kv_length, kv_heads, head_dim]``.
    counts : new tokens of each sequence.
    """
    pages = [-(-len(keys) // page_size) for keys, _ in plain]
    order = torch.randperm(sum(pages) + 1)
    kv_heads, head_dim = plain[0][0].shape[1:] if plain else (1, query.shape[2])
    shape = (sum(pages) + 1, kv_heads, page_size, head_dim)
    cache = [torch.full(shape, float("nan"), dtype=query.dtype) for _ in range(2)]
    table = torch.full((len(plain), max(pages, default=0)), -1, dtype=torch.int32)
    for row, (sequence, own) in enumerate(zip(plain, order.split([*pages, 1])[:-1], strict=True)):
        table[row, : len(own)] = own
        positions = torch.arange(len(sequence[0]))
        for pool, tokens in zip(cache, sequence, strict=True):
            pool[own[positions // page_size], :, positions % page_size] = tokens
    layout = PagedLayout(
        slots=torch.empty(0, dtype=torch.long),
        query_starts=torch.tensor([0, *counts]).cumsum(0).to(DEVICE, torch.int32),
        kv_lengths=torch.tensor([len(keys) for keys, _ in plain], dtype=torch.int32, device=DEVICE),
        page_table=table.to(DEVICE),
        max_query_length=max(counts, default=0),
    )
    return Batch(query.to(DEVICE), cache[0].to(DEVICE), cache[1].to(DEVICE), layout, plain)


def random_batch(
    lengths: list[tuple[int, int]],
    kv_heads: int = 2,
    group: int = 2,
    head_dim: int = 64,
    page_size: int = 16,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Normal numbers, for sequences of ``(new tokens, context)``."""
    plain = []
    for _, context in lengths:
        keys, values = torch.randn(2, context, kv_heads, head_dim).to(dtype)
        plain.append((keys, values))
    counts = [count for count, _ in lengths]
    query = torch.randn(sum(counts), kv_heads * group, head_dim).to(dtype)
    return build(query, plain, counts, page_size)


def scored_batch(scores: Tensor, shifts: Tensor, values: Tensor, dtype: torch.dtype = torch.float32) -> Batch:
    """One sequence with one KV head whose scores, at a scale of 1, are ``scores`` plus a shift for each row.

    Parameters
    ----------
    scores : ``[kv_length]``.
    shifts : ``[tokens, heads]``.
    values : ``[kv_length, 64]``.
    """
    query = torch.zeros(*shifts.shape, 64)
    query[..., 0], query[..., 1] = 1.0, shifts
    keys = torch.zeros(len(scores), 1, 64)
    keys[:, 0, 0], keys[:, 0, 1] = scores, 1.0
    return build(query.to(dtype), [(keys.to(dtype), values[:, None].to(dtype))], [len(shifts)], 16)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference as a share of the largest number."""
    if not expected.numel():
        return 0.0
    return ((found.cpu().double() - expected).abs().max() / expected.abs().max()).item()
