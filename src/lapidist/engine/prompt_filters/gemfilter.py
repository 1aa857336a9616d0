"""GemFilter: one early layer's attention chooses the tokens (arXiv 2409.17422)."""

from collections.abc import Generator

from torch import Tensor

from lapidist.engine.prompt_filters.config import GemFilter
from lapidist.engine.prompt_filters.layer_pass import LayerPass
from lapidist.engine.prompt_filters.outcome import KeptTokens
from lapidist.engine.prompt_filters.scores import attention_scores, pooled, raw_scores
from lapidist.engine.prompt_filters.selection import select


def gemfilter(
    layers: LayerPass, options: GemFilter, layer: int, count: int
) -> Generator[int, None, KeptTokens]:
    """Run layers 0 to ``layer - 1``, and of ``layer`` no more than the scores need; keep ``count`` tokens.

    The reference implementation runs ``layer`` too and chooses the same tokens.
    """
    for index in range(layer):
        yield from layers.run(index)
    yield from layers.project_keys(layer)
    scores = filter_scores(layers, options, layers.last_queries(layer, options.window))
    places = select(scores, count, options.keep_first, options.keep_last, options.chunk).tolist()
    positions = places if options.positions == "original" else None
    return KeptTokens(places, positions, layer=layer, scores=scores)


def filter_scores(layers: LayerPass, options: GemFilter, queries: Tensor) -> Tensor:
    """float32 ``[tokens]`` by the keys in the pass's cache."""
    if options.softmax:
        config = layers.decoder.config
        scores = attention_scores(
            queries, layers.keys(), config.attention_scale, config.attention_softcap
        ).sum(0)
    else:
        scores = raw_scores(queries, layers.keys())
    return pooled(scores, options.pool)
