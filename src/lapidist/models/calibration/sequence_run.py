"""A decoder over one sequence after another, with a KV cache of its own."""

from collections.abc import Iterator, Sequence

import torch

from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.models.batch import Batch
from lapidist.models.calibration.context_buckets import chunks
from lapidist.models.decoder import AttentionObserver, Decoder

_PAGE_SIZE = 16


class SequenceRun:
    """Computes sequences of up to ``context`` tokens, as prefill in chunks."""

    def __init__(self, decoder: Decoder, context: int) -> None:
        config = decoder.config
        self._decoder = decoder
        self._pages = list(range(-(-context // _PAGE_SIZE)))
        shape = (config.num_layers, len(self._pages), _PAGE_SIZE, config.num_kv_heads, config.head_dim)
        self._cache = PagedKVCache(*shape, decoder.dtype, decoder.device, decoder.kv_bits)

    def run(self, token_ids: Sequence[int], observer: AttentionObserver | None = None) -> Iterator[range]:
        """Yields the positions of each chunk after it was computed."""
        for span in chunks(len(token_ids)):
            self._decoder.forward(self._batch(token_ids, span), self._cache, observer)
            yield span

    def _batch(self, token_ids: Sequence[int], span: range) -> Batch:
        device = self._decoder.device
        positions = torch.tensor(span, device=device)
        lengths = torch.full((len(span),), len(token_ids), device=device)
        # The pages lie in order, so that a token's slot is its position.
        layout = PagedLayout.build(span, [len(span)], [span.stop], [self._pages], device)
        return Batch(
            torch.tensor(token_ids[span.start : span.stop], device=device), positions, lengths, layout
        )
