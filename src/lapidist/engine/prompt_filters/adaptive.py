"""GemFilter that chooses filter layer and number of tokens from where the attention goes."""

from collections.abc import Generator

import torch
from torch import Tensor

from lapidist.engine.prompt_filters.config import Adaptive
from lapidist.engine.prompt_filters.forecast import prefill_flops
from lapidist.engine.prompt_filters.layer_pass import LayerPass, Tail
from lapidist.engine.prompt_filters.outcome import KeptTokens
from lapidist.engine.prompt_filters.scores import attention_scores, pooled
from lapidist.engine.prompt_filters.selection import select
from lapidist.models.config import ModelConfig


def layer_range(options: Adaptive, num_layers: int) -> range:
    """Layers that may decide."""
    last = min(num_layers - 1, num_layers * 19 // 32 if options.last_layer is None else options.last_layer)
    first = num_layers // 4 if options.first_layer is None else options.first_layer
    return range(min(first, last), last + 1)


def adaptive_gain(config: ModelConfig, tokens: int, kept: int, layer: int) -> float:
    """Times less arithmetic than the whole prompt takes, if ``layer``, which runs too, decides for ``kept`` tokens."""
    filtered = prefill_flops(config, tokens, layer + 1) + prefill_flops(config, kept)
    return prefill_flops(config, tokens) / filtered


def adaptive(
    layers: LayerPass, options: Adaptive, most: int, can_be_plain: bool
) -> Generator[int, None, KeptTokens]:
    """See ``Adaptive``; ``most`` tokens are kept at the most, or all if ``can_be_plain``."""
    config = layers.decoder.config
    able = layer_range(options, config.num_layers)
    scores = torch.zeros(0)
    places = torch.zeros(0, dtype=torch.int64)
    previous: Tensor | None = None
    for layer in range(able.stop):
        tail = Tail(layers.tokens, options.window)
        yield from layers.run(layer, tail.observe)
        if layer < able.start:
            continue
        window = tail.queries()
        weights = attention_scores(window, layers.keys(), config.attention_scale, config.attention_softcap)
        scores = pooled(weights.sum(0) / (config.num_heads * len(window)), options.pool)
        count = tokens_for_mass(scores, options, most)
        places = select(scores, count, options.keep_first, options.keep_last)
        if previous is not None and float(torch.isin(previous, places).float().mean()) >= options.agreement:
            break
        previous = places
    forecast = adaptive_gain(config, layers.tokens, len(places), layer)
    if can_be_plain and forecast < options.gain:
        reason = f"keeping {len(places)} of {layers.tokens} tokens would gain {forecast:.2f}x"
        return KeptTokens(list(range(layers.tokens)), None, reason, layer, scores, forecast)
    return KeptTokens(places.tolist(), layer=layer, scores=scores, forecast_gain=forecast)


def tokens_for_mass(scores: Tensor, options: Adaptive, most: int) -> int:
    """How many of the highest ``scores`` ``[tokens]`` hold the share ``mass`` of all, within the bounds."""
    held = scores.sort(descending=True).values.double().cumsum(0)
    needed = int(torch.searchsorted(held, options.mass * held[-1])) + 1
    return min(most, max(needed, options.least, options.keep_first + options.keep_last))
