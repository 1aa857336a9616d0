"""A filter at work on one prompt, a piece at a time."""

import time
from collections.abc import Generator, Sequence

from lapidist.engine.prompt_filters.adaptive import adaptive
from lapidist.engine.prompt_filters.config import (
    H2O,
    Adaptive,
    FastKV,
    GemFilter,
    PromptFilter,
    SnapKV,
)
from lapidist.engine.prompt_filters.gemfilter import gemfilter
from lapidist.engine.prompt_filters.kv_selection import fastkv, h2o, snapkv, streamingllm
from lapidist.engine.prompt_filters.layer_pass import LayerPass
from lapidist.engine.prompt_filters.outcome import KeptKV, Outcome
from lapidist.engine.prompt_filters.plan import FilterPlan
from lapidist.models.decoder import Decoder
from lapidist.workload.step import FilterStep


class FilterRun:
    """Runs a planned filter. Memory is taken with the first piece of work and given back with the last.

    Parameters
    ----------
    chunk_tokens : tokens that run at once.
    page_size : see ``LayerPass``.

    Attributes
    ----------
    outcome : None until the run has ended.
    seconds : of work so far.
    scratch_bytes : the most memory that it held at once, see ``LayerPass.scratch_bytes``.
    layer_tokens : tokens times layers that were computed.
    work : the same piece by piece, see ``LayerPass.work``.
    """

    def __init__(
        self,
        decoder: Decoder,
        token_ids: Sequence[int],
        plan: FilterPlan,
        chunk_tokens: int,
        page_size: int,
    ) -> None:
        self._arguments = decoder, token_ids, chunk_tokens, page_size
        self._plan = plan
        self._layers: LayerPass | None = None
        self._work: Generator[int, None, Outcome] | None = None
        self.outcome: Outcome | None = None
        self.seconds = 0.0
        self.scratch_bytes = 0
        self.layer_tokens = 0
        self.work: list[FilterStep] = []

    def advance(self, layer_tokens: int) -> int:
        """Work on until about so many tokens have run through a layer; returns how many did."""
        start = time.monotonic()
        done = 0
        if self._work is None:
            self._layers = LayerPass(*self._arguments)
            self._work = _work(self._layers, self._plan.options, self._plan)
            self.work = self._layers.work
            self.scratch_bytes = self._layers.scratch_bytes
        try:
            while done < layer_tokens:
                done += next(self._work)
        except StopIteration as end:
            self._finish(end.value)
        self.layer_tokens += done
        self.seconds += time.monotonic() - start
        return done

    def _finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if isinstance(outcome, KeptKV):
            self.scratch_bytes += sum(tensor.nbytes for tensor in (*outcome.keys, *outcome.values))
        # The generator and the pass hold the memory.
        self._layers = self._work = None


def _work(layers: LayerPass, options: PromptFilter, plan: FilterPlan) -> Generator[int, None, Outcome]:
    match options:
        case GemFilter():
            return gemfilter(
                layers, plan.gemfilter_policy, plan.filter_layer, plan.kept, options.positions == "original"
            )
        case Adaptive():
            return adaptive(layers, options, plan.adaptive_policy, plan.kept, plan.can_be_plain)
        case SnapKV():
            return snapkv(layers, options, plan.kept, plan.positions)
        case H2O():
            return h2o(layers, options, plan.kept, plan.positions)
        case FastKV():
            return fastkv(layers, options, plan.filter_layer, plan.kept)
        case _:
            return streamingllm(layers, options, plan.kept, plan.positions)
