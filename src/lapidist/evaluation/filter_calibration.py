"""Which policy and layer find what matters in a prompt, and how many tokens are enough: a sweep with hidden facts.

GemFilter (arXiv 2409.17422) looks for the first layer from which on the chosen tokens hit a hidden fact. Here each
layer is also judged by what counts: whether the model answers from the tokens that it chose.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lapidist.engine.prompt_filters.forecast import gain
from lapidist.engine.prompt_filters.selection import kept_tokens
from lapidist.evaluation.filter_policy_search import (
    ScoredPrompts,
    Trial,
    gemfilter_choice,
    scores_by_layer,
    search_adaptive,
    search_policy,
)
from lapidist.evaluation.haystack import Haystack, haystack_of
from lapidist.evaluation.logit_run import LogitRun
from lapidist.evaluation.needle import Probe, answers, cell_probes
from lapidist.evaluation.needle_facts import draw_needle
from lapidist.models.calibration.default_text import default_texts
from lapidist.models.decoder import Decoder
from lapidist.models.filter_config import AdaptivePolicy, FilterDefaults, GemFilterPolicy
from lapidist.models.tokenizer import Tokenizer

DEFAULT_KEEPS = (0.05, 0.1, 0.2, 0.4)
DEFAULT_GOAL = 0.95
DEFAULT_TRIALS = 2
_DEFAULT_LENGTH = 2048
_SHORTEST = 128
_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_TOKENS_PER_DISTRACTOR = 32  # in every second prompt, half of which is other facts
_QUESTION = 4  # times as long as a fact: it, the question, and the beginning of the reply
_MARGIN = 0.8  # a policy that needs all of the share would fail on prompts a little shorter than these

Progress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and all."""


@dataclass(frozen=True)
class FilterCalibration:
    """The sweep.

    Attributes
    ----------
    lengths, prompts : tokens of the prompts with their answers, and how many prompts there were.
    keeps : shares of the prompt that were kept, ascending.
    goal : share of the full accuracy that is enough.
    full : share of the prompts that the model answers from the whole prompt.
    accuracy : ``[layers][keeps]``, the same from what each layer chose.
    recall : ``[layers][keeps]``, share of the answer's tokens in the hidden fact that were chosen.
    distance : ``[layers][keeps]``, tokens between the hidden answer and the nearest chosen one, median.
    ends_kept : ``[layers][keeps]``, how often the prompt's last token was chosen: where it was not, the model goes on
        from another.
    gain : ``[layers][keeps]``, times less arithmetic in the prompt phase of the longest prompts.
    policy : with which each layer chose.
    trials : the policies that were tried before, none where the policy was given.
    adaptive : what the adaptive filter does best with, if anything was found.
    """

    lengths: tuple[int, ...]
    prompts: int
    keeps: tuple[float, ...]
    goal: float
    full: float
    accuracy: np.ndarray
    recall: np.ndarray
    distance: np.ndarray
    ends_kept: np.ndarray
    gain: np.ndarray
    policy: GemFilterPolicy
    trials: tuple[Trial, ...] = ()
    adaptive: AdaptivePolicy | None = None

    @property
    def defaults(self) -> FilterDefaults | None:
        """Of the layers and shares that reach the goal those that gain the most; None if none does, or if the model
        answers nothing from the whole prompt. The published policy is the default as it is."""
        best = _best(self.accuracy, self.gain, self.keeps, self.goal * self.full)
        if best is None:
            return None
        policy = None if self.policy == GemFilterPolicy() else self.policy
        return FilterDefaults(*best, policy, self.adaptive)


def _best(
    accuracy: np.ndarray, gain: np.ndarray, keeps: Sequence[float], enough: float
) -> tuple[int, float] | None:
    """Layer and share."""
    if not accuracy.max() >= enough > 0:
        return None
    layer, index = np.unravel_index(np.where(accuracy >= enough, gain, 0).argmax(), gain.shape)
    return int(layer), keeps[int(index)]


def calibrate_filter(
    decoder: Decoder,
    tokenizer: Tokenizer,
    haystack: Haystack,
    *,
    length: int | None = None,
    keeps: Sequence[float] = DEFAULT_KEEPS,
    trials: int = DEFAULT_TRIALS,
    goal: float = DEFAULT_GOAL,
    style: str = "number",
    policy: GemFilterPolicy | None = None,
    seed: int = 1,
    progress: Progress = lambda label, done, total: None,
) -> FilterCalibration:
    """
    Parameters
    ----------
    length : of the longest prompts; the others are half and a quarter as long. None is 2048 or the model's context,
        whichever is less.
    trials : prompts for each of five depths and each length.
    policy : how tokens are chosen; None has it searched, see ``filter_policy_search``.
    style : one of ``needle_facts.STYLES``.

    Raises
    ------
    ValueError : a number is out of range, or the prompts do not fit the model or the text.
    """
    context = decoder.config.max_position_embeddings
    length = min(_DEFAULT_LENGTH, context) if length is None else length
    if not 1 <= length <= context:
        raise ValueError(f"length must be from 1 to the model's context of {context} tokens, got {length}")
    if not keeps or not all(0 < keep <= 1 for keep in keeps):
        raise ValueError(
            f"shares to keep must be above 0 and up to 1, got {', '.join(map(str, keeps)) or 'none'}"
        )
    keeps = tuple(sorted(set(keeps)))
    fact = _fact_tokens(tokenizer, style)
    lengths = calibration_lengths(length, fact)
    probes = _probes(haystack, tokenizer, lengths, fact, trials, seed, style)
    run = LogitRun(decoder, length)
    known = _known(run, probes, progress)
    tried: tuple[Trial, ...] = ()
    prompts = ScoredPrompts(run, decoder, known, lambda *of: progress("scores", *of))
    if policy is None:
        policy = GemFilterPolicy()
        if known:
            shares = [_MARGIN * keep for keep in keeps]
            tried = tuple(search_policy(prompts, shares, goal, lambda *of: progress("policies", *of)))
            policy = tried[-1].policy
    sweep = _Sweep(run, decoder, policy, keeps)
    for count, probe in enumerate(probes, start=1):
        sweep.add(probe)
        progress("layers", count, len(probes))
    accuracy, full = np.mean(sweep.accuracy, axis=0), len(known) / len(probes)
    gains = np.array(
        [
            [gain(decoder.config, length, kept_tokens(keep, length), layer) for keep in keeps]
            for layer in range(decoder.config.num_layers)
        ]
    )
    best, adaptive = _best(accuracy, gains, keeps, goal * full), None
    if best is not None:
        adaptive = search_adaptive(prompts, policy, *best, lambda *of: progress("adaptive", *of))
    return FilterCalibration(
        lengths,
        len(probes),
        keeps,
        goal,
        full,
        accuracy,
        np.mean(sweep.recall, axis=0),
        np.median(sweep.distance, axis=0),
        np.mean(sweep.ends_kept, axis=0),
        gains,
        policy,
        tried,
        adaptive,
    )


def calibration_lengths(longest: int, fact_tokens: int) -> tuple[int, ...]:
    """A quarter, a half and all of it, as far as a fact, the question for it and as much text fit."""
    shortest = max(_SHORTEST, 2 * _QUESTION * fact_tokens)
    shorter = (length for length in (longest // 4, longest // 2) if length >= shortest)
    return (*shorter, longest)


def _fact_tokens(tokenizer: Tokenizer, style: str) -> int:
    """The longest of some facts, in tokens."""
    rng = np.random.default_rng(0)
    facts = [draw_needle(rng, style).statement for _ in range(16)]
    return 1 + max(len(tokenizer.encode(f" {fact}", add_special_tokens=False)) for fact in facts)


def _probes(
    haystack: Haystack,
    tokenizer: Tokenizer,
    lengths: Sequence[int],
    fact_tokens: int,
    trials: int,
    seed: int,
    style: str,
) -> list[Probe]:
    """Of each length and depth ``trials``, with other facts beside the one asked for at every second depth."""
    others = {
        length: max(0, min(length // _TOKENS_PER_DISTRACTOR, length // fact_tokens - _QUESTION))
        for length in lengths
    }
    return [
        probe
        for length in lengths
        for place, depth in enumerate(_DEPTHS)
        for probe in cell_probes(
            haystack,
            tokenizer,
            length,
            depth,
            trials,
            seed,
            style,
            place % 2 * others[length],
        )
    ]


def _known(run: LogitRun, probes: Sequence[Probe], progress: Progress) -> list[Probe]:
    """Those that the model answers from the whole prompt: of the others no filter is to blame."""
    found = []
    progress("whole prompts", 0, len(probes))
    for count, probe in enumerate(probes, start=1):
        if answers(run, probe):
            found.append(probe)
        progress("whole prompts", count, len(probes))
    return found


def calibration_haystack(tokenizer: Tokenizer, texts: Sequence[str] | None, length: int) -> Haystack:
    """Text to hide facts in, enough for prompts of ``length`` tokens; None is a mixture that ships with Lapidist."""
    if texts is not None:
        return haystack_of("\n\n".join(texts), tokenizer)
    parts: list[str] = []
    characters = 0
    for part in default_texts():
        parts.append(part)
        characters += len(part)
        if characters > 16 * length:  # a token is rarely longer than eight
            break
    return haystack_of("".join(parts), tokenizer)


class _Sweep:
    """Results by prompt, each ``[layers][keeps]``."""

    def __init__(
        self, run: LogitRun, decoder: Decoder, policy: GemFilterPolicy, keeps: tuple[float, ...]
    ) -> None:
        self._run, self._decoder, self._policy, self._keeps = run, decoder, policy, keeps
        self.accuracy: list[np.ndarray] = []
        self.recall: list[np.ndarray] = []
        self.distance: list[np.ndarray] = []
        self.ends_kept: list[np.ndarray] = []

    def add(self, probe: Probe) -> None:
        hidden = _find(probe)
        shape = self._decoder.config.num_layers, len(self._keeps)
        accuracy, recall, distance, ends_kept = (np.zeros(shape) for _ in range(4))
        scoring = self._policy.softmax, self._policy.window
        for (layer, _, _), scores in scores_by_layer(self._decoder, probe.prompt, [scoring]):
            for index, keep in enumerate(self._keeps):
                places = gemfilter_choice(scores, self._policy, keep).tolist()
                gathered = [probe.prompt[place] for place in places]
                accuracy[layer, index] = answers(self._run, Probe(gathered, probe.answer))
                recall[layer, index] = len(set(places) & set(hidden)) / len(hidden)
                distance[layer, index] = min(
                    max(hidden.start - place, place - hidden.stop + 1, 0) for place in places
                )
                ends_kept[layer, index] = places[-1] == len(probe.prompt) - 1
        self.accuracy.append(accuracy)
        self.recall.append(recall)
        self.distance.append(distance)
        self.ends_kept.append(ends_kept)


def _find(probe: Probe) -> range:
    """Where the answer stands in the prompt: the last place, for the question itself does not hold it.

    Where the tokenizer merged its end with the text behind it, the longest beginning of the answer that is there.
    """
    for length in range(len(probe.answer), 0, -1):
        answer = probe.answer[:length]
        for start in range(len(probe.prompt) - length, -1, -1):
            if probe.prompt[start : start + length] == answer:
                return range(start, start + length)
    raise ValueError("the tokenizer writes the hidden fact otherwise than the answer: try another --style")
