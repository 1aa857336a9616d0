"""Filters that run the whole prompt and keep, of every head, the keys and values of some tokens: SnapKV (arXiv
2404.14469), H2O (arXiv 2306.14048), StreamingLLM (arXiv 2309.17453) and FastKV (arXiv 2502.01068).

A head here is a KV head: the attention of the query heads that share its keys is summed.
"""

from collections.abc import Generator

import torch
from torch import Tensor

from lapidist.engine.prompt_filters.config import H2O, FastKV, SnapKV, StreamingLLM
from lapidist.engine.prompt_filters.layer_pass import LayerPass, Tail
from lapidist.engine.prompt_filters.outcome import KeptKV
from lapidist.engine.prompt_filters.scores import pooled


def snapkv(layers: LayerPass, options: SnapKV, count: int, positions: int) -> Generator[int, None, KeptKV]:
    """Each head keeps the last ``window`` tokens and those that they attend to most."""
    kept = _Kept(layers, count)
    for index, slides in enumerate(_slide(layers, positions)):
        if slides:
            yield from layers.run(index)
            kept.add_last()
            continue
        tail = Tail(layers.tokens, options.window)
        yield from layers.run(index, tail.observe)
        scores = layers.attention_scores(tail.queries())
        kept.add(_window_choice(scores, count, options.window, options.pool))
    return kept.outcome()


def h2o(layers: LayerPass, options: H2O, count: int, positions: int) -> Generator[int, None, KeptKV]:
    """Each head keeps the ``recent`` last tokens and the heavy hitters: those with the most attention from all."""
    kept = _Kept(layers, count)
    for index, slides in enumerate(_slide(layers, positions)):
        if slides:
            yield from layers.run(index)
            kept.add_last()
            continue
        received = torch.zeros(
            layers.decoder.config.num_kv_heads, layers.tokens, device=layers.decoder.device
        )

        def add_weights(span: range, query: Tensor, received: Tensor = received) -> None:
            for head, weights in layers.attention_weights(query, span):
                received[head, : span.stop] += weights.sum(0)

        yield from layers.run(index, add_weights)
        kept.add(_window_choice(received, count, options.recent, pool=1))
    return kept.outcome()


def streamingllm(
    layers: LayerPass, options: StreamingLLM, count: int, positions: int
) -> Generator[int, None, KeptKV]:
    """All heads keep the first ``sinks`` tokens and the last ones."""
    kept = _Kept(layers, count)
    sinks = min(options.sinks, count)
    places = torch.cat((torch.arange(sinks), torch.arange(layers.tokens - (count - sinks), layers.tokens)))
    choice = places.to(layers.decoder.device).expand(layers.decoder.config.num_kv_heads, -1)
    for index, slides in enumerate(_slide(layers, positions)):
        yield from layers.run(index)
        if slides:
            kept.add_last()
        else:
            kept.add(choice)
    return kept.outcome()


def _slide(layers: LayerPass, positions: int) -> list[bool]:
    """Of each layer whether its window hides any of so many positions. Such a layer keeps the last tokens: those in the
    window are the only ones that it sees, and with no gap between them their places tell what the window hides."""
    windows = layers.decoder.config.sliding_windows
    return [window is not None and window < positions for window in windows]


def fastkv(layers: LayerPass, options: FastKV, layer: int, count: int) -> Generator[int, None, KeptKV]:
    """As SnapKV; behind ``layer`` only the tokens that its last queries attend to most go on."""
    kept = _Kept(layers, count)
    for index in range(layers.decoder.config.num_layers):
        tail = Tail(layers.tokens, options.window)
        yield from layers.run(index, tail.observe)
        scores = layers.attention_scores(tail.queries())
        kept.add(_window_choice(scores, count, options.window, options.pool))
        if index == layer:
            going_on = min(layers.tokens, max(count, round(options.propagate * layers.tokens)))
            [places] = _window_choice(scores.sum(0)[None], going_on, options.window, options.pool)
            layers.narrow(places)
            kept.narrow(places)
    return kept.outcome(layer)


def _window_choice(scores: Tensor, count: int, window: int, pool: int) -> Tensor:
    """Per row of ``scores`` ``[heads, tokens]``: the last ``window`` places, and the best of those before them by the
    mean over ``pool`` neighbours. int64 ``[heads, count]``, ascending."""
    heads, tokens = scores.shape
    window = min(window, count)
    before = pooled(scores[:, : tokens - window], pool) if tokens > window else scores[:, :0]
    best = before.sort(descending=True, stable=True).indices[:, : count - window]
    last = torch.arange(tokens - window, tokens, device=scores.device).expand(heads, -1)
    return torch.cat((best, last), -1).sort().values


class _Kept:
    """The keys and values that were kept so far, layer by layer."""

    def __init__(self, layers: LayerPass, count: int) -> None:
        config, device = layers.decoder.config, layers.decoder.device
        self._layers, self._count = layers, count
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        # Where the tokens under way stand in the prompt.
        self._places = torch.arange(layers.tokens, device=device)
        self._pairs = torch.zeros(layers.tokens, device=device)
        self._heads = config.num_layers * config.num_kv_heads

    def add(self, choice: Tensor) -> None:
        """Of the layer that has just run: int64 ``[kv_heads, count]``, places among the tokens under way."""
        rows = choice[:, :, None].expand(-1, -1, self._layers.decoder.config.head_dim)
        self._keys.append(self._layers.keys().gather(1, rows).transpose(0, 1).contiguous())
        self._values.append(self._layers.values().gather(1, rows).transpose(0, 1).contiguous())
        self._pairs.index_add_(0, self._places[choice.flatten()], self._pairs.new_ones(choice.numel()))

    def add_last(self) -> None:
        """Of the layer that has just run the last tokens."""
        places = torch.arange(
            self._layers.tokens - self._count, self._layers.tokens, device=self._places.device
        )
        self.add(places.expand(self._layers.decoder.config.num_kv_heads, -1))

    def narrow(self, places: Tensor) -> None:
        self._places = self._places[places]

    def outcome(self, layer: int | None = None) -> KeptKV:
        last = self._layers.decoder.final_norm(self._layers.hidden[-1:].clone())
        return KeptKV(self._keys, self._values, last, layer, self._pairs / self._heads)
