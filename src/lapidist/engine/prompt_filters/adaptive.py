"""GemFilter that chooses filter layer and number of tokens from where the attention goes."""

from collections.abc import Generator

import torch
from torch import Tensor

from lapidist.engine.prompt_filters.config import Adaptive
from lapidist.engine.prompt_filters.forecast import gain
from lapidist.engine.prompt_filters.layer_pass import LayerPass
from lapidist.engine.prompt_filters.outcome import KeptTokens
from lapidist.engine.prompt_filters.scores import attention_scores, pooled
from lapidist.engine.prompt_filters.selection import select
from lapidist.models.config import ModelConfig


def layer_range(options: Adaptive, config: ModelConfig) -> range:
    """Layers that may decide."""
    layers, calibrated = config.num_layers, config.prompt_filter
    first, last = (
        (layers // 4, layers * 19 // 32) if calibrated is None else (calibrated.layer, calibrated.layer + 2)
    )
    if options.first_layer is not None:
        first = options.first_layer
    if options.last_layer is not None:
        last = options.last_layer
    last = min(max(first, last) if options.last_layer is None else last, layers - 1)
    return range(min(first, last), last + 1)


def adaptive(
    layers: LayerPass, options: Adaptive, most: int, can_be_plain: bool
) -> Generator[int, None, KeptTokens]:
    """See ``Adaptive``; ``most`` tokens are kept at the most, or all if ``can_be_plain``."""
    config = layers.decoder.config
    able = layer_range(options, config)
    scores = torch.zeros(0)
    places = torch.zeros(0, dtype=torch.int64)
    previous: Tensor | None = None
    middle = slice(options.keep_first, max(options.keep_first, layers.tokens - options.keep_last))
    for layer in range(able.stop):
        if layer >= able.start - 1:
            yield from layers.project_keys(layer)
            weights = _weights(layers, layer, options.window)
            scores = pooled(weights, options.pool)
            count = tokens_for_mass(scores, options, most)
            places = select(scores, count, options.keep_first, options.keep_last)
            chosen = places[(places >= middle.start) & (places < middle.stop)]
            has_settled = previous is not None and _agreement(previous, chosen, middle) >= options.agreement
            if layer >= able.start and has_settled and float(weights[middle].sum()) >= options.reach:
                break
            previous = chosen
        if layer < able.stop - 1:
            yield from layers.run(layer)
    forecast = gain(config, layers.tokens, len(places), layer)
    if can_be_plain and forecast < options.gain:
        reason = f"keeping {len(places)} of {layers.tokens} tokens would gain {forecast:.2f}x"
        return KeptTokens(list(range(layers.tokens)), None, reason, layer, scores, forecast)
    return KeptTokens(places.tolist(), layer=layer, scores=scores, forecast_gain=forecast)


def _weights(layers: LayerPass, layer: int, window: int) -> Tensor:
    """``layer``'s attention weights ``[tokens]``, the mean of all heads and the last ``window`` queries, by the keys in
    the pass's cache."""
    config = layers.decoder.config
    queries = layers.last_queries(layer, window)
    weights = attention_scores(queries, layers.keys(), config.attention_scale, config.attention_softcap)
    return weights.sum(0) / (config.num_heads * len(queries))


def _agreement(previous: Tensor, chosen: Tensor, middle: slice) -> float:
    """The share of the places ``previous`` that are ``chosen`` again, beyond what so many random ones would hit: 0 is
    chance and 1 is all. Places of the ``middle`` of the prompt only."""
    if len(previous) == 0:
        return 0.0
    again = float(torch.isin(previous, chosen).float().mean())
    chance = len(chosen) / (middle.stop - middle.start)
    return (again - chance) / (1 - chance) if chance < 1 else 0.0


def tokens_for_mass(scores: Tensor, options: Adaptive, most: int) -> int:
    """How many of the highest ``scores`` ``[tokens]`` hold the share ``mass`` of all, within the bounds."""
    held = scores.sort(descending=True).values.double().cumsum(0)
    needed = int(torch.searchsorted(held, options.mass * held[-1])) + 1
    return min(most, max(needed, options.least, options.keep_first + options.keep_last))
