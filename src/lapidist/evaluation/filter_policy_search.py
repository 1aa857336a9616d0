"""Which policy of a prompt filter finds what matters, by whether the model answers from the tokens that it keeps.

Options are changed one after another (coordinate ascent from the published policy), and each value is judged in several
layers at once, in the best of them. Scoring a prompt takes one pass through the model for all policies; what a policy
is judged by are short prompts, those of the tokens that it keeps.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lapidist.engine.prompt_filters.adaptive import choose, most_tokens
from lapidist.engine.prompt_filters.gemfilter import unpooled_scores
from lapidist.engine.prompt_filters.layer_pass import LayerPass, Tail
from lapidist.engine.prompt_filters.scores import pooled
from lapidist.engine.prompt_filters.selection import kept_tokens, select
from lapidist.evaluation.logit_run import LogitRun
from lapidist.evaluation.needle import Probe, answer_quality
from lapidist.models.decoder import Decoder
from lapidist.models.filter_config import AdaptivePolicy, GemFilterPolicy

SCORINGS = ((False, 1), (True, 1), (True, 4), (True, 8))
"""Softmax or not, and how many last queries."""

COORDINATES: tuple[tuple[dict[str, Any], ...], ...] = (
    tuple({"keep_last": count} for count in (0, 8, 16, 24, 32)),
    tuple({"softmax": softmax, "window": window} for softmax, window in SCORINGS),
    tuple({"pool": width} for width in (5, 9, 13, 21)),
    tuple({"keep_first": count} for count in (0, 1, 4)),
    tuple({"chunk": length} for length in (1, 8)),
)
"""Options in the order in which they are tried; options that depend on each other are one."""

_ROUNDS = 2
_MOST_LAYERS = 8
_CHUNK_TOKENS = 512
_PAGE_SIZE = 16
# Nats of an answer's token by which a change must be better, if it does not answer more prompts.
_WORTHWHILE = 0.02
_MASSES = (0.7, 0.8, 0.9)  # less would be enough for one fact, and too little for what is spread
_POOLS = (13, 21, 31)

Progress = Callable[[int, int], None]


@dataclass(frozen=True, order=True)
class Judgement:
    """How good a choice of tokens is; more answers are better, and of as many the surer ones.

    Attributes
    ----------
    accuracy : share of the prompts whose answer greedy decoding gives.
    log_probability : of an answer's token, mean over the prompts, in nats.
    """

    accuracy: float
    log_probability: float


@dataclass(frozen=True)
class Trial:
    """One policy of the search: how it did with ``keep`` in the best layer."""

    policy: GemFilterPolicy
    keep: float
    layer: int
    judgement: Judgement


class ScoredPrompts:
    """Prompts with every layer's scores of their tokens.

    Parameters
    ----------
    probes : that the model answers from the whole prompt.
    """

    def __init__(self, run: LogitRun, decoder: Decoder, probes: Sequence[Probe], progress: Progress) -> None:
        self._run = run
        self.probes = probes
        self.num_layers = decoder.config.num_layers
        self._heads = decoder.config.num_heads
        self._scores: list[dict[tuple[int, bool, int], Tensor]] = []
        for count, probe in enumerate(probes, start=1):
            self._scores.append(dict(scores_by_layer(decoder, probe.prompt, SCORINGS)))
            progress(count, len(probes))

    def judge(self, policy: GemFilterPolicy, keep: float, layer: int) -> Judgement:
        """The model on what the policy keeps by the scores of ``layer``."""
        return self._judge(
            [
                gemfilter_choice(scores[layer, policy.softmax, policy.window], policy, keep)
                for scores in self._scores
            ]
        )

    def judge_adaptive(self, policy: AdaptivePolicy, keep: float, layer: int) -> tuple[Judgement, float]:
        """The same of the adaptive filter, and the mean share of the prompts that it keeps."""
        choices = []
        for scores in self._scores:
            weights = scores[layer, True, policy.window] / (self._heads * policy.window)
            choices.append(choose(weights, policy, most_tokens(keep, policy, len(weights))).places)
        shares = [len(own) / len(probe.prompt) for own, probe in zip(choices, self.probes, strict=True)]
        return self._judge(choices), float(np.mean(shares))

    def _judge(self, choices: Sequence[Tensor]) -> Judgement:
        found = [
            answer_quality(self._run, Probe([probe.prompt[place] for place in places.tolist()], probe.answer))
            for probe, places in zip(self.probes, choices, strict=True)
        ]
        exact, log_probabilities = zip(*found, strict=True)
        return Judgement(float(np.mean(exact)), float(np.mean(log_probabilities)))


def gemfilter_choice(scores: Tensor, policy: GemFilterPolicy, keep: float) -> Tensor:
    """The places that GemFilter keeps by a layer's scores ``[tokens]`` before pooling."""
    count = kept_tokens(keep, len(scores))
    return select(pooled(scores, policy.pool), count, policy.keep_first, policy.keep_last, policy.chunk)


@torch.inference_mode()
def scores_by_layer(
    decoder: Decoder, token_ids: Sequence[int], scorings: Sequence[tuple[bool, int]]
) -> Iterator[tuple[tuple[int, bool, int], Tensor]]:
    """A prompt's scores ``[tokens]`` before pooling, by layer, softmax and window; one pass through all layers."""
    layers = LayerPass(decoder, token_ids, _CHUNK_TOKENS, _PAGE_SIZE)
    longest = max(window for _, window in scorings)
    for layer in range(decoder.config.num_layers):
        tail = Tail(len(token_ids), longest)
        for _ in layers.run(layer, tail.observe):
            pass
        queries = tail.queries()
        for softmax, window in scorings:
            yield (layer, softmax, window), unpooled_scores(layers, softmax, queries[-window:])


def search_policy(
    prompts: ScoredPrompts, keeps: Sequence[float], goal: float, progress: Progress
) -> list[Trial]:
    """Coordinate ascent with the smallest of ``keeps``, and with the next from there, until ``goal`` of the prompts are
    answered.

    Returns
    -------
    All policies that were tried, and the best of them once more at the end.
    """
    trials: list[Trial] = []
    layers = judged_layers(prompts.num_layers)
    policy = GemFilterPolicy()
    most = _ROUNDS * sum(len(choices) - 1 for choices in COORDINATES) + 1
    for keep in keeps:
        done = 0
        best = _in_best_layer(prompts, policy, keep, layers)
        trials.append(best)
        for _ in range(_ROUNDS):
            before = best
            for changes in (change for choices in COORDINATES for change in choices):
                changed = replace(best.policy, **changes)
                if changed == best.policy:
                    continue
                trial = _in_best_layer(prompts, changed, keep, layers)
                trials.append(trial)
                done += 1
                progress(min(done, most), most)
                if _is_worthwhile(trial.judgement, best.judgement):
                    best = trial
            if best is before:
                break
        progress(most, most)
        policy = best.policy
        if best.judgement.accuracy >= goal:
            break
    trials.append(best)
    return trials


def judged_layers(num_layers: int) -> list[int]:
    """Eight at most, evenly spread over the depth but its first quarter, which is too early (arXiv 2409.17422)."""
    found = np.linspace(num_layers // 4, num_layers - 1, _MOST_LAYERS)
    return sorted({round(layer) for layer in found})


def _in_best_layer(
    prompts: ScoredPrompts, policy: GemFilterPolicy, keep: float, layers: Sequence[int]
) -> Trial:
    found = [(prompts.judge(policy, keep, layer), -layer) for layer in layers]
    judgement, layer = max(found)
    return Trial(policy, keep, -layer, judgement)


def _is_worthwhile(found: Judgement, best: Judgement) -> bool:
    if found.accuracy != best.accuracy:
        return found.accuracy > best.accuracy
    return found.log_probability > best.log_probability + _WORTHWHILE


def search_adaptive(
    prompts: ScoredPrompts, policy: GemFilterPolicy, layer: int, keep: float, progress: Progress
) -> AdaptivePolicy:
    """Of windows, spans and masses those with which the fewest tokens are kept, of those that do about as well as the
    best with no more than the share ``keep`` on average, at ``layer``; and half of the mass that is left out then, for
    prompts to come ask for more than one fact.

    The ends are those of GemFilter's ``policy``, or the default where it keeps no end.
    """
    start = AdaptivePolicy(agreement=0.0)  # the layer is known to find what matters
    if policy.keep_last:
        start = replace(start, keep_first=policy.keep_first, keep_last=policy.keep_last)
    candidates = [
        # The ends and one span at the least, however short the prompt.
        replace(
            start,
            window=window,
            pool=pool,
            mass=mass,
            least=start.keep_first + start.keep_last + pool,
        )
        for window in sorted({window for softmax, window in SCORINGS if softmax})
        for pool in _POOLS
        for mass in _MASSES
    ]
    found: list[tuple[Judgement, float]] = []
    for candidate in candidates:
        found.append(prompts.judge_adaptive(candidate, keep, layer))
        progress(len(found), len(candidates))
    least = min(share for _, share in found)
    best = max(judgement for judgement, share in found if share <= max(keep, least))
    good = [
        (share, index)
        for index, (judgement, share) in enumerate(found)
        if not _is_worthwhile(best, judgement)
    ]
    chosen = candidates[min(good)[1]]
    return replace(chosen, mass=(1 + chosen.mass) / 2)


def policy_options(policy: GemFilterPolicy | AdaptivePolicy) -> str:
    """For people: ``pool 13, softmax``.

    >>> policy_options(GemFilterPolicy(softmax=True))
    'pool 5, keep_first 0, keep_last 0, chunk 1, softmax, window 1'
    """
    values = {field.name: getattr(policy, field.name) for field in fields(policy)}
    parts = [
        (name if value else f"no {name}") if isinstance(value, bool) else f"{name} {value:g}"
        for name, value in values.items()
    ]
    return ", ".join(parts)
