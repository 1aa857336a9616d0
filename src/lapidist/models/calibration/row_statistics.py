"""What calibration keeps of the row maxima of attention."""

import torch
from torch import Tensor

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.kernels.row_maxima import row_maxima
from lapidist.models.calibration.context_buckets import COUNT, buckets_of
from lapidist.models.config import ModelConfig

# Bins of half a nat from -256 to 256, and one at each end for what lies beyond. Fixed bins rather than a reservoir or
# P2: their error is bounded in nats, the unit that counts here, they do not depend on the order of the text, and their
# size is known beforehand (8 KiB per head).
_BIN = 0.5
_FIRST = -256.0
_BINS = 1024


class RowStatistics:
    """Row maxima of every layer and head, streamed: memory does not grow with the text.

    The first token of a sequence is left out. It sees nothing but itself, so that its score does not matter and is
    often far from all others; where it leaves the band, one product is computed again.

    Attributes
    ----------
    lowest, highest : float32 ``[layers, heads]``.
    lowest_by_context, highest_by_context : float32 ``[layers, heads, buckets]``, see ``context_buckets``; infinite
        where nothing was seen.
    largest_value : float32 ``[layers]``, of the magnitudes in the value cache.
    """

    def __init__(self, config: ModelConfig, device: torch.device | str = "cpu") -> None:
        self._config = config
        layers, heads = config.num_layers, config.num_heads
        self.lowest_by_context = torch.full((layers, heads, COUNT), float("inf"), device=device)
        self.highest_by_context = torch.full((layers, heads, COUNT), float("-inf"), device=device)
        self.largest_value = torch.zeros(layers, device=device)
        self._histogram = torch.zeros(layers, heads, _BINS + 2, dtype=torch.long, device=device)

    @property
    def lowest(self) -> Tensor:
        return self.lowest_by_context.amin(-1)

    @property
    def highest(self) -> Tensor:
        return self.highest_by_context.amax(-1)

    @property
    def rows_per_head(self) -> int:
        return int(self._histogram[0, 0].sum())

    def observe(self, layer: int, query: Tensor, cache: PagedKVCache, layout: PagedLayout) -> None:
        """An ``AttentionObserver``."""
        config, device = self._config, query.device
        keys, values = cache.numbers(layer)
        maxima = row_maxima(
            query,
            keys,
            layout,
            config.attention_scale,
            config.sliding_windows[layer],
            config.attention_softcap,
        )
        lengths = layout.query_starts.diff().long()
        last = layout.query_starts[1:].long()  # of a sequence, plus one; its last token sees all of it
        contexts = torch.arange(1, len(query) + 1, device=device) + (
            layout.kv_lengths - last
        ).repeat_interleave(lengths)
        counts = contexts > 1
        self._add(layer, maxima[counts], buckets_of(contexts[counts]))
        page, slot = layout.slots // cache.page_size, layout.slots % cache.page_size
        largest = values[page, :, slot].abs().amax().float()
        self.largest_value[layer] = torch.maximum(self.largest_value[layer], largest)

    def _add(self, layer: int, maxima: Tensor, buckets: Tensor) -> None:
        """Take in ``[tokens, heads]`` maxima of tokens in these buckets."""
        tokens, heads = maxima.shape
        index = buckets.expand(heads, tokens)
        self.lowest_by_context[layer].scatter_reduce_(1, index, maxima.T, "amin")
        self.highest_by_context[layer].scatter_reduce_(1, index, maxima.T, "amax")
        bins = ((maxima.nan_to_num(nan=float("inf")) - _FIRST) / _BIN).floor().clamp(-1, _BINS).long() + 1
        bins += torch.arange(heads, device=bins.device) * (_BINS + 2)
        counts = torch.bincount(bins.flatten(), minlength=heads * (_BINS + 2))
        self._histogram[layer] += counts.view(heads, _BINS + 2)

    def quantile(self, share: float) -> Tensor:
        """float32 ``[layers, heads]``, right to half a nat; beyond the bins, the extreme."""
        ranks = self._histogram.cumsum(-1).double()
        wanted = torch.full_like(ranks[..., :1], share * self.rows_per_head)
        found = torch.searchsorted(ranks, wanted).squeeze(-1)
        middle = _FIRST + (found.float() - 0.5) * _BIN
        middle = torch.where(found == 0, self.lowest, torch.where(found > _BINS, self.highest, middle))
        return middle.clamp(self.lowest, self.highest)
