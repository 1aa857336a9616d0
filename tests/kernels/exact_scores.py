"""Attention over scores that are given: keys whose first channel is the score, queries that are (1, 0, ...)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.kernels.cpu.attention import SPLIT_TOKENS, paged_attention
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.softmax import Softmax, SoftmaxMode

PAGE_SIZE = 16


@dataclass(frozen=True)
class Rows:
    """Rows of scores and the cache that gives them: row ``r`` is KV head ``r % heads`` of sequence ``r // heads``.

    Attributes
    ----------
    scores : float32 ``[rows, keys]``.
    values : ``[rows, keys, head_dim]``, the last channel all ones: its result is 1 if nothing went astray.
    """

    scores: Tensor
    values: Tensor
    heads: int

    @classmethod
    def of(
        cls, scores: Tensor, heads: int = 1, head_dim: int = 2, dtype: torch.dtype = torch.float32
    ) -> "Rows":
        """With normal values of at most 4."""
        values = torch.randn(*scores.shape, head_dim).clamp(-4, 4)
        values[..., -1] = 1
        return cls(scores.to(dtype), values.to(dtype), heads)

    def attend(
        self, mode: SoftmaxMode, phi: float | Tensor = 0.0, split_tokens: int = SPLIT_TOKENS
    ) -> tuple[Tensor, int]:
        """Results ``[rows, head_dim]``, and how many rows were computed again. ``phi`` is one or ``[heads]``."""
        rows, length, head_dim = self.values.shape
        sequences = rows // self.heads
        keys = torch.zeros_like(self.values)
        keys[..., 0] = self.scores
        pages = -(-length // PAGE_SIZE)
        table = torch.arange(sequences * pages).reshape(sequences, pages).tolist()
        layout = PagedLayout.build([], [1] * sequences, [length] * sequences, table)
        query = torch.zeros(sequences, self.heads, head_dim, dtype=self.values.dtype)
        query[..., 0] = 1
        softmax = Softmax(mode, torch.as_tensor(phi).float().expand(self.heads).contiguous())
        found, recomputed = paged_attention(
            query, self._paged(keys), self._paged(self.values), layout, 1.0, None, None, softmax, split_tokens
        )
        return found.reshape(rows, head_dim), recomputed

    def _paged(self, tensor: Tensor) -> Tensor:
        """``[rows, keys, head_dim]`` to ``[pages, heads, page_size, head_dim]``; what no key owns is NaN."""
        rows, length, head_dim = tensor.shape
        pages = -(-length // PAGE_SIZE)
        padded = torch.full((rows, pages * PAGE_SIZE, head_dim), torch.nan, dtype=tensor.dtype)
        padded[:, :length] = tensor
        split = padded.reshape(rows // self.heads, self.heads, pages, PAGE_SIZE, head_dim)
        return split.transpose(1, 2).reshape(-1, self.heads, PAGE_SIZE, head_dim).contiguous()

    def expected(self) -> Tensor:
        """float64 ``[rows, head_dim]``"""
        return torch.einsum("rk,rkd->rd", self.scores.double().softmax(-1), self.values.double())

    def error(self, found: Tensor) -> float:
        """The largest, relative to the largest result."""
        expected = self.expected()
        return float((found.double() - expected).abs().max() / expected.abs().max())

    def log_denominators(self, phi: float | Tensor = 0.0) -> Tensor:
        """float64 ``[rows]``, natural logarithms of what mode unified sums; it rounds phi to a power of four."""
        shifts = (torch.as_tensor(phi).double() / math.log(4)).round() * math.log(4)
        return self.scores.double().logsumexp(-1) - shifts.expand(self.heads).repeat(
            len(self.scores) // self.heads
        )
