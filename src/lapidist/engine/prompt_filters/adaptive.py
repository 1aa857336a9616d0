"""GemFilter that chooses filter layer and number of tokens from where the attention goes."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from lapidist.engine.prompt_filters.config import Adaptive, Keep
from lapidist.engine.prompt_filters.forecast import gain
from lapidist.engine.prompt_filters.layer_pass import LayerPass
from lapidist.engine.prompt_filters.outcome import KeptTokens
from lapidist.engine.prompt_filters.scores import pooled
from lapidist.engine.prompt_filters.selection import kept_tokens, select
from lapidist.models.config import ModelConfig
from lapidist.models.filter_config import AdaptivePolicy


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
    layers: LayerPass, options: Adaptive, policy: AdaptivePolicy, most: int, can_be_plain: bool
) -> Generator[int, None, KeptTokens]:
    """See ``Adaptive``; ``most`` tokens are kept at the most, or all if ``can_be_plain``."""
    config = layers.decoder.config
    able = layer_range(options, config)
    first, last = forced_ends(policy, most)
    middle = slice(first, max(first, layers.tokens - last))
    choice = Choice(torch.zeros(0, dtype=torch.int64), torch.zeros(0), fits=False)
    previous: Tensor | None = None
    for layer in range(able.stop):
        if layer >= able.start - (policy.agreement > 0):
            yield from layers.project_keys(layer)
            choice = choose(_weights(layers, layer, policy.window), policy, most)
            places = choice.places
            chosen = places[(places >= middle.start) & (places < middle.stop)]
            if layer >= able.start and choice.fits and _has_settled(previous, chosen, middle, policy):
                break
            previous = chosen
        if layer < able.stop - 1:
            yield from layers.run(layer)
    count = len(choice.places)
    forecast = gain(config, layers.tokens, count, layer)
    if can_be_plain and forecast < options.gain:
        reason = f"keeping {count} of {layers.tokens} tokens would gain {forecast:.2f}x"
        return KeptTokens(list(range(layers.tokens)), None, reason, layer, choice.scores, forecast)
    return KeptTokens(choice.places.tolist(), layer=layer, scores=choice.scores, forecast_gain=forecast)


@dataclass(frozen=True)
class Choice:
    """What one layer would keep.

    Attributes
    ----------
    places : ascending, int64.
    scores : ``[tokens]``.
    fits : whether all that the mass asks for is kept.
    """

    places: Tensor
    scores: Tensor
    fits: bool


def choose(weights: Tensor, policy: AdaptivePolicy, most: int) -> Choice:
    """At most ``most`` tokens by a layer's attention ``weights`` ``[tokens]``, see ``Adaptive``."""
    first, last = forced_ends(policy, most)
    scores = weights.clone()
    # The ends have much of the weight and are kept anyhow: they lend nothing to their neighbours.
    middle = scores[first : len(scores) - last]
    middle.copy_(pooled(middle, policy.pool))
    wanted = max(policy.least, first + last + tokens_for_mass(middle, policy.mass))
    return Choice(select(scores, min(wanted, most), first, last), scores, wanted <= most)


def most_tokens(keep: Keep, policy: AdaptivePolicy, tokens: int) -> int:
    """Of ``tokens`` how many may be kept, see ``Adaptive.keep``."""
    keep = 0.5 if keep is None else keep
    most = kept_tokens(keep, tokens)
    return min(tokens, max(most, policy.least)) if isinstance(keep, float) else most


def forced_ends(policy: AdaptivePolicy, most: int) -> tuple[int, int]:
    """How many tokens are kept in any case at the beginning and at the end: of ``most`` half at the most."""
    first = min(policy.keep_first, most // 2)
    return first, min(policy.keep_last, most // 2 - first)


def _weights(layers: LayerPass, layer: int, window: int) -> Tensor:
    """``layer``'s attention weights ``[tokens]``, the mean of all heads and the last ``window`` queries, by the keys in
    the pass's cache."""
    queries = layers.last_queries(layer, window)
    weights = layers.attention_scores(queries)
    return weights.sum(0) / (layers.decoder.config.num_heads * len(queries))


def _has_settled(previous: Tensor | None, chosen: Tensor, middle: slice, policy: AdaptivePolicy) -> bool:
    if policy.agreement == 0:
        return True
    return previous is not None and _agreement(previous, chosen, middle) >= policy.agreement


def _agreement(previous: Tensor, chosen: Tensor, middle: slice) -> float:
    """The share of the places ``previous`` that are ``chosen`` again, beyond what so many random ones would hit: 0 is
    chance and 1 is all. Places of the ``middle`` of the prompt only."""
    if len(previous) == 0:
        return 0.0
    again = float(torch.isin(previous, chosen).float().mean())
    chance = len(chosen) / (middle.stop - middle.start)
    return (again - chance) / (1 - chance) if chance < 1 else 0.0


def tokens_for_mass(scores: Tensor, mass: float) -> int:
    """How many of the highest ``scores`` ``[tokens]`` hold the share ``mass`` of the excess over their mean.

    >>> tokens_for_mass(torch.tensor([0.0, 6.0, 1.0, 4.0, 0.0, 1.0]), 0.9)
    2
    """
    if len(scores) == 0:
        return 0
    excess = (scores.double() - scores.double().mean()).clamp_min(0)
    held = excess.sort(descending=True).values.cumsum(0)
    return int(torch.searchsorted(held, mass * held[-1])) + 1
