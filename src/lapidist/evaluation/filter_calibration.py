"""Which layer finds what matters in a prompt, and how many tokens are enough: a sweep over layers with hidden facts.

GemFilter (arXiv 2409.17422) looks for the first layer from which on the chosen tokens hit a hidden fact. Here each
layer is also judged by what counts: whether the model answers from the tokens that it chose.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lapidist.engine.prompt_filters.config import GemFilter
from lapidist.engine.prompt_filters.gemfilter import filter_scores
from lapidist.engine.prompt_filters.layer_pass import LayerPass, Tail
from lapidist.engine.prompt_filters.selection import kept_tokens, select
from lapidist.evaluation.haystack import Haystack, haystack_of
from lapidist.evaluation.logit_run import LogitRun
from lapidist.evaluation.needle import Probe, answers, cell_probes
from lapidist.models.calibration.default_text import default_texts
from lapidist.models.decoder import Decoder
from lapidist.models.filter_config import FilterDefaults
from lapidist.models.tokenizer import Tokenizer

DEFAULT_KEEPS = (0.05, 0.1, 0.2, 0.4)
DEFAULT_GOAL = 0.95
_DEFAULT_LENGTH = 2048
_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_CHUNK_TOKENS = 512
_PAGE_SIZE = 16


@dataclass(frozen=True)
class FilterCalibration:
    """The sweep.

    Attributes
    ----------
    length, trials : tokens of each prompt with its answer, and how many prompts there were.
    keeps : shares of the prompt that were kept, ascending.
    goal : share of the full accuracy that is enough.
    full : share of the prompts that the model answers from the whole prompt.
    accuracy : ``[layers][keeps]``, the same from what each layer chose.
    recall : ``[layers][keeps]``, share of the answer's tokens in the hidden fact that were chosen.
    distance : ``[layers][keeps]``, tokens between the hidden answer and the nearest chosen one, median.
    ends_kept : ``[layers][keeps]``, how often the prompt's last token was chosen: where it was not, the model goes on
        from another.
    """

    length: int
    trials: int
    keeps: tuple[float, ...]
    goal: float
    full: float
    accuracy: np.ndarray
    recall: np.ndarray
    distance: np.ndarray
    ends_kept: np.ndarray

    @property
    def defaults(self) -> FilterDefaults | None:
        """The smallest share with which a layer reaches the goal, and of the layers that do the best, the first of
        equals; None if none does, or if the model answers nothing from the whole prompt."""
        if self.full == 0:
            return None
        for index, keep in enumerate(self.keeps):
            column = self.accuracy[:, index]
            if column.max() >= self.goal * self.full:
                return FilterDefaults(int(column.argmax()), keep)
        return None


def calibrate_filter(
    decoder: Decoder,
    tokenizer: Tokenizer,
    haystack: Haystack,
    *,
    length: int | None = None,
    keeps: Sequence[float] = DEFAULT_KEEPS,
    trials: int = 4,
    goal: float = DEFAULT_GOAL,
    style: str = "number",
    options: GemFilter | None = None,
    seed: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FilterCalibration:
    """
    Parameters
    ----------
    length : of the prompts; None is 2048 or the model's context, whichever is less.
    trials : prompts for each of five depths.
    options : how tokens are chosen; ``layer`` and ``keep`` in it are ignored.
    style : one of ``needle_facts.STYLES``.
    progress : called with the prompts run and all.

    Raises
    ------
    ValueError : a number is out of range, or the prompts do not fit the model or the text.
    """
    options = options or GemFilter()
    context = decoder.config.max_position_embeddings
    length = min(_DEFAULT_LENGTH, context) if length is None else length
    if not 1 <= length <= context:
        raise ValueError(f"length must be from 1 to the model's context of {context} tokens, got {length}")
    if not keeps or not all(0 < keep <= 1 for keep in keeps):
        raise ValueError(
            f"shares to keep must be above 0 and up to 1, got {', '.join(map(str, keeps)) or 'none'}"
        )
    keeps = tuple(sorted(set(keeps)))
    probes = [
        probe
        for depth in _DEPTHS
        for probe in cell_probes(haystack, tokenizer, length, depth, trials, seed, style)
    ]
    sweep = _Sweep(LogitRun(decoder, length), decoder, options, keeps)
    progress(0, len(probes))
    for count, probe in enumerate(probes, start=1):
        sweep.add(probe)
        progress(count, len(probes))
    return FilterCalibration(
        length,
        len(probes),
        keeps,
        goal,
        float(np.mean(sweep.full)),
        np.mean(sweep.accuracy, axis=0),
        np.mean(sweep.recall, axis=0),
        np.median(sweep.distance, axis=0),
        np.mean(sweep.ends_kept, axis=0),
    )


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

    def __init__(self, run: LogitRun, decoder: Decoder, options: GemFilter, keeps: tuple[float, ...]) -> None:
        self._run, self._decoder, self._options, self._keeps = run, decoder, options, keeps
        self.full: list[bool] = []
        self.accuracy: list[np.ndarray] = []
        self.recall: list[np.ndarray] = []
        self.distance: list[np.ndarray] = []
        self.ends_kept: list[np.ndarray] = []

    def add(self, probe: Probe) -> None:
        self.full.append(answers(self._run, probe))
        hidden = _find(probe)
        shape = self._decoder.config.num_layers, len(self._keeps)
        accuracy, recall, distance, ends_kept = (np.zeros(shape) for _ in range(4))
        for layer, scores in enumerate(layer_scores(self._decoder, probe.prompt, self._options)):
            for index, keep in enumerate(self._keeps):
                places = self._choice(scores, keep)
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

    def _choice(self, scores: Tensor, keep: float) -> list[int]:
        options, count = self._options, kept_tokens(keep, len(scores))
        found: list[int] = select(
            scores, count, options.keep_first, options.keep_last, options.chunk
        ).tolist()
        return found


@torch.inference_mode()
def layer_scores(decoder: Decoder, token_ids: Sequence[int], options: GemFilter) -> list[Tensor]:
    """The prompt's scores ``[tokens]`` by every layer, from one pass through all of them."""
    layers = LayerPass(decoder, token_ids, _CHUNK_TOKENS, _PAGE_SIZE)
    found = []
    for layer in range(decoder.config.num_layers):
        tail = Tail(len(token_ids), options.window)
        for _ in layers.run(layer, tail.observe):
            pass
        found.append(filter_scores(layers, options, tail.queries()))
    return found


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
