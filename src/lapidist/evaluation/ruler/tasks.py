"""RULER's tasks by name: samples of a length in a model's own tokens, and how a reply is scored."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from lapidist.evaluation.prompt_frame import PromptFrame
from lapidist.evaluation.ruler.counting import (
    COMMON,
    FEWEST_FREQUENT,
    common_words_sample,
    frequent_words_sample,
)
from lapidist.evaluation.ruler.fitting import most_that_fit
from lapidist.evaluation.ruler.needles import NEEDLE_TASKS, needle_samples
from lapidist.evaluation.ruler.questions import QuestionSet, question_sample
from lapidist.evaluation.ruler.sample import Sample
from lapidist.evaluation.ruler.scores import match_all, match_part
from lapidist.evaluation.ruler.tracking import FEWEST_LINES, tracking_sample
from lapidist.models.tokenizer import Tokenizer

PHRASINGS = ("ruler", "plain")
"""The published wording, or the one that the bundled model was trained on: of needles, for other tasks have but one."""

SYNTHETIC = (*NEEDLE_TASKS, "vt", "cwe", "fwe")

EXAMPLE_FROM = 2048
"""In shorter prompts there is no room for the worked examples of variable tracking and common words."""


@dataclass(frozen=True)
class Ruler:
    """What samples are made of.

    Attributes
    ----------
    sentences : of the essays.
    questions : by task; without them the tasks of question answering are left out.
    """

    tokenizer: Tokenizer
    frame: PromptFrame
    sentences: Sequence[str]
    phrasing: str = "ruler"
    questions: dict[str, QuestionSet] = field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        return (*SYNTHETIC, *self.questions)

    def samples(self, task: str, length: int, seed: int, index: int) -> list[Sample]:
        """Sample ``index`` of a task: prompt and room for the reply take ``length`` tokens at the most, and less than
        another sentence, line, word or document would fill up. Equal arguments give equal samples.

        Raises
        ------
        ValueError : the task does not fit into ``length`` tokens.
        """
        make, fewest, most = self._maker(task, length)

        def made(units: int) -> list[Sample]:
            return make(np.random.default_rng([seed, self.tasks.index(task), length, index]), units)

        def tokens(units: int) -> int:
            return max(self.tokens(sample) for sample in made(units))

        try:
            return made(most_that_fit(tokens, length, fewest, most))
        except ValueError as error:
            raise ValueError(f"task {task} does not fit into {length} tokens: {error}") from None

    def tokens(self, sample: Sample) -> int:
        """Of the prompt and of the room for its reply."""
        return len(sample.prompt(self.tokenizer, self.frame)) + sample.reply_tokens(self.tokenizer)

    def _maker(
        self, task: str, length: int
    ) -> tuple[Callable[[np.random.Generator, int], list[Sample]], int, int | None]:
        """How to make samples of so many units, the fewest of these, and the most."""
        if task in NEEDLE_TASKS:
            kind = NEEDLE_TASKS[task]
            return (
                lambda rng, units: needle_samples(rng, kind, self.sentences, units, self.phrasing),
                0,
                None,
            )
        if task == "vt":
            with_example = length >= EXAMPLE_FROM
            return lambda rng, units: [tracking_sample(rng, units, with_example)], FEWEST_LINES, None
        if task == "cwe":
            return lambda rng, units: [common_words_sample(rng, units, length)], COMMON + 1, None
        if task == "fwe":
            return lambda rng, units: [frequent_words_sample(rng, units, length)], FEWEST_FREQUENT, None
        source = self.questions[task]
        return lambda rng, units: [question_sample(rng, source, units)], 1, len(source.documents)


def score_of(task: str) -> Callable[[str, Sequence[str]], float]:
    """Needles and words: the share that was found. Questions: any of the answers."""
    return match_all if task in SYNTHETIC else match_part


def sentences_of(text: str) -> list[str]:
    """Sentences of a text, with its white space as single spaces, as RULER joins them."""
    flat = " ".join(text.split())
    return [each for each in re.split(r"(?<=[.!?]) ", flat) if each]
