"""What is kept of the activations that flow through a layer while it runs over the calibration text."""

import torch
from torch import Tensor

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout

_COLUMNS = 1024


class InputStatistics:
    """Of the inputs ``[tokens, channels]`` of a linear layer.

    Attributes
    ----------
    maxima : float32 ``[channels]``, the largest magnitude of each channel.
    """

    def __init__(self, channels: int, with_hessian: bool, sample_every: int) -> None:
        self._every = sample_every
        self._samples: list[Tensor] = []
        self._seen = 0
        self.maxima = torch.zeros(channels)
        self._products = torch.zeros(channels, channels) if with_hessian else None

    def __call__(self, x: Tensor) -> None:
        x = x.float()
        self.maxima = self.maxima.maximum(x.abs().amax(0))
        # Every n-th token, counted over all calls.
        self._samples.append(x[-self._seen % self._every :: self._every].clone())
        self._seen += len(x)
        if self._products is not None:
            # The part below the diagonal and a little more; the rest is the same.
            for start in range(0, x.shape[1], _COLUMNS):
                columns = slice(start, start + _COLUMNS)
                self._products[start:, columns].addmm_(x[:, start:].T, x[:, columns])

    @property
    def hessian(self) -> Tensor | None:
        """float32 ``[channels, channels]``, ``X^T X`` over all tokens; None if it was not asked for."""
        if self._products is None:
            return None
        return self._products.tril() + self._products.tril(-1).T

    @property
    def samples(self) -> Tensor:
        """float32 ``[tokens / sample_every, channels]``."""
        return torch.cat(self._samples)


class AttentionStatistics:
    """Of queries and keys after rotary embedding.

    Attributes
    ----------
    query_maxima, key_maxima : float32 ``[heads, head_dim]``, the largest magnitude of each channel.
    """

    def __init__(self, num_heads: int, num_kv_heads: int, head_dim: int) -> None:
        self.query_maxima = torch.zeros(num_heads, head_dim)
        self.key_maxima = torch.zeros(num_kv_heads, head_dim)

    def __call__(self, query: Tensor, cache: PagedKVCache, layout: PagedLayout) -> None:
        self.query_maxima = self.query_maxima.maximum(query.float().abs().amax(0))
        page, slot = layout.slots // cache.page_size, layout.slots % cache.page_size
        keys = cache.keys[0][page, :, slot].float()
        self.key_maxima = self.key_maxima.maximum(keys.abs().amax(0))
