"""GemFilter: one early layer's attention chooses the tokens (arXiv 2409.17422)."""

from collections.abc import Generator

from torch import Tensor

from lapidist.engine.prompt_filters.layer_pass import LayerPass
from lapidist.engine.prompt_filters.outcome import KeptTokens
from lapidist.engine.prompt_filters.scores import pooled
from lapidist.engine.prompt_filters.selection import select
from lapidist.models.filter_config import GemFilterPolicy


def gemfilter(
    layers: LayerPass, policy: GemFilterPolicy, layer: int, count: int, keeps_positions: bool
) -> Generator[int, None, KeptTokens]:
    """Run layers 0 to ``layer - 1``, and of ``layer`` no more than the scores need; keep ``count`` tokens.

    The reference implementation runs ``layer`` too and chooses the same tokens.
    """
    for index in range(layer):
        yield from layers.run(index)
    yield from layers.project_keys(layer)
    scores = filter_scores(layers, policy, layers.last_queries(layer, policy.window))
    places = select(scores, count, policy.keep_first, policy.keep_last, policy.chunk).tolist()
    return KeptTokens(places, places if keeps_positions else None, layer=layer, scores=scores)


def filter_scores(layers: LayerPass, policy: GemFilterPolicy, queries: Tensor) -> Tensor:
    """float32 ``[tokens]`` by the keys in the pass's cache."""
    return pooled(unpooled_scores(layers, policy.softmax, queries), policy.pool)


def unpooled_scores(layers: LayerPass, softmax: bool, queries: Tensor) -> Tensor:
    return layers.attention_scores(queries).sum(0) if softmax else layers.raw_scores(queries)
