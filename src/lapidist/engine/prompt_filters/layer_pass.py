"""A prompt through the decoder one layer after another, so that only one layer's keys and values exist at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lapidist.engine.prompt_filters import scores
from lapidist.kernels.kv_cache import PagedKVCache
from lapidist.kernels.paged_layout import PagedLayout
from lapidist.models.decoder import Decoder
from lapidist.workload.step import FilterStep, FilterWork

Work = Iterator[int]
"""Yields, after each piece of work, how many tokens it took through a layer. Who drives it decides when it goes on."""

Observer = Callable[[range, Tensor], None]
"""Called with the places of a chunk's tokens and their queries ``[tokens, heads, head_dim]``; keys and values of these
tokens and of all before them are in the cache."""

# About so many times the projection of keys would make a layer.
_KEYS_IN_LAYER = 16


class LayerPass:
    """Hidden states of a whole prompt and the keys and values of the layer under way.

    A prefill in chunks of tokens takes every chunk through all layers and needs the keys and values of all of them.
    Here each layer takes all chunks before the next layer begins; the numbers are the same.

    Parameters
    ----------
    chunk_tokens : tokens that run at once.
    page_size : of the scratch cache on a GPU, where it is bound to be a power of two.

    Attributes
    ----------
    hidden : ``[tokens, hidden_size]``, what the next layer gets.
    tokens : that are still under way.
    layers_run : how often a layer ran over all tokens.
    work : what was computed so far, in the language of recorded steps. Who reads it may empty it.
    """

    def __init__(self, decoder: Decoder, token_ids: Sequence[int], chunk_tokens: int, page_size: int) -> None:
        config, device = decoder.config, decoder.device
        count = len(token_ids)
        self.decoder = decoder
        self.layers_run = 0
        self.work: list[FilterStep] = []
        self._layer = 0  # whose keys are in the cache
        self._chunk_tokens = chunk_tokens
        self.hidden = decoder.embed(torch.tensor(token_ids, device=device))
        self._note("embedding", 0, count)
        lengths = torch.full((count,), count, device=device)
        self._cos_sin = decoder.cos_sin(torch.arange(count, device=device), lengths)
        if device.type == "cpu":
            page_size = count  # one page: a head's keys lie together and can be seen without a copy
        self._pages = list(range(-(-count // page_size)))
        shape = (1, len(self._pages), page_size, config.num_kv_heads, config.head_dim)
        self.cache = PagedKVCache(*shape, decoder.dtype, device, decoder.kv_bits)

    @property
    def tokens(self) -> int:
        return len(self.hidden)

    @property
    def scratch_bytes(self) -> int:
        """Memory of hidden states, rotary factors and the one layer's keys and values."""
        cache = (*self.cache.keys, *self.cache.values)
        return sum(tensor.nbytes for tensor in (self.hidden, *self._cos_sin, *cache))

    def run(self, layer: int, observe: Observer | None = None) -> Work:
        """Take all tokens through ``layer``."""
        self._layer = layer
        for span in self._chunks():
            part = slice(span.start, span.stop)
            self._note("layer", layer, len(span), span.stop)
            self.decoder.run_layer(
                layer,
                self.hidden[part],
                self._cos_sin_of(part),
                self._layout(span),
                self.cache,
                0,
                None if observe is None else lambda query, *_, span=span: observe(span, query),
            )
            yield len(span)
        self.layers_run += 1

    def project_keys(self, layer: int) -> Work:
        """Put ``layer``'s keys of all tokens into the cache, and compute nothing else of it."""
        self._layer = layer
        for span in self._chunks():
            part = slice(span.start, span.stop)
            self._note("keys", layer, len(span))
            keys = self.decoder.keys(layer, self.hidden[part], self._cos_sin_of(part))
            self.cache.write(0, self._slots(span), keys, keys)
            yield -(-len(span) // _KEYS_IN_LAYER)

    def last_queries(self, layer: int, count: int) -> Tensor:
        """``layer``'s queries of the last ``count`` tokens, ``[count, heads, head_dim]``."""
        last = slice(max(0, self.tokens - count), self.tokens)
        self._note("queries", layer, last.stop - last.start)
        return self.decoder.queries(layer, self.hidden[last], self._cos_sin_of(last))

    def keys(self) -> Tensor:
        """Of the layer that ran last, ``[kv_heads, tokens, head_dim]``; on a CPU a view of plain numbers."""
        return self._of_tokens(self.cache.numbers(0)[0])

    def values(self) -> Tensor:
        """As ``keys``."""
        return self._of_tokens(self.cache.numbers(0)[1])

    def raw_scores(self, queries: Tensor) -> Tensor:
        """``scores.raw_scores`` of the last tokens' queries and ``keys()``."""
        self._note("raw_scores", self._layer, len(queries), self.tokens)
        return scores.raw_scores(queries, self.keys())

    def attention_scores(self, queries: Tensor) -> Tensor:
        """``scores.attention_scores`` of the last tokens' queries and ``keys()``."""
        self._note("attention_scores", self._layer, len(queries), self.tokens)
        config = self.decoder.config
        return scores.attention_scores(queries, self.keys(), config.attention_scale, config.attention_softcap)

    def attention_weights(self, queries: Tensor, span: range) -> Iterator[tuple[int, Tensor]]:
        """``scores.attention_weights`` of the queries of the tokens in ``span`` and the keys up to its end."""
        self._note("attention_scores", self._layer, len(span), span.stop)
        config, keys = self.decoder.config, self.keys()[:, : span.stop]
        return scores.attention_weights(
            queries, keys, span.start, config.attention_scale, config.attention_softcap
        )

    def narrow(self, places: Tensor) -> None:
        """Go on with the tokens at ascending ``places`` (int64) alone; they stay at their positions in the prompt."""
        self.hidden = self.hidden[places]
        cos, sin = self._cos_sin
        self._cos_sin = cos[places], sin[places]

    def _note(self, work: FilterWork, layer: int, tokens: int, kv_length: int | None = None) -> None:
        self.work.append(FilterStep(work, layer, tokens, tokens if kv_length is None else kv_length))

    def _chunks(self) -> Iterator[range]:
        for start in range(0, self.tokens, self._chunk_tokens):
            yield range(start, min(start + self._chunk_tokens, self.tokens))

    def _cos_sin_of(self, part: slice) -> tuple[Tensor, Tensor]:
        cos, sin = self._cos_sin
        return cos[part], sin[part]

    def _slots(self, span: range) -> Tensor:
        # The pages lie in order, so that a token's slot is its place.
        return torch.arange(span.start, span.stop, device=self.decoder.device)

    def _layout(self, span: range) -> PagedLayout:
        return PagedLayout.build(span, [len(span)], [span.stop], [self._pages], self.decoder.device)

    def _of_tokens(self, pages: Tensor) -> Tensor:
        return pages.transpose(0, 1).flatten(1, 2)[:, : self.tokens]


@dataclass
class Tail:
    """An observer that collects a layer's queries of the last ``window`` of ``tokens`` tokens."""

    tokens: int
    window: int
    _parts: list[Tensor] = field(default_factory=list)

    def observe(self, span: range, query: Tensor) -> None:
        wanted = max(span.start, self.tokens - self.window)
        if wanted < span.stop:
            self._parts.append(query[wanted - span.start :].clone())

    def queries(self) -> Tensor:
        """``[window, heads, head_dim]``, fewer of a shorter prompt."""
        return torch.cat(self._parts)
