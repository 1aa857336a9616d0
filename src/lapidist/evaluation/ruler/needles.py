"""RULER's eight needle tasks: one or several keys, values and questions, in three kinds of haystack."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lapidist.evaluation.ruler.sample import Sample
from lapidist.evaluation.ruler.values import distinct_values

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
_DEPTHS = np.linspace(0, 100, 40).round().astype(int)
_PUBLISHED_REPLY = 128


@dataclass(frozen=True)
class NeedleTask:
    """One line of RULER's table of tasks.

    Attributes
    ----------
    haystack : "noise" (one line again and again), "essay", or "needles" (of other keys).
    key, value : "words", "numbers" or "uuids".
    keys, values, queries : how many keys are hidden, values each of them has, and keys are asked for.
    """

    haystack: str
    key: str = "words"
    value: str = "numbers"
    keys: int = 1
    values: int = 1
    queries: int = 1


NEEDLE_TASKS = {
    "niah_single_1": NeedleTask("noise"),
    "niah_single_2": NeedleTask("essay"),
    "niah_single_3": NeedleTask("essay", value="uuids"),
    "niah_multikey_1": NeedleTask("essay", keys=4),
    "niah_multikey_2": NeedleTask("needles"),
    "niah_multikey_3": NeedleTask("needles", key="uuids", value="uuids"),
    "niah_multivalue": NeedleTask("essay", values=4),
    "niah_multiquery": NeedleTask("essay", keys=4, queries=4),
}


def needle_samples(
    rng: np.random.Generator, task: NeedleTask, sentences: Sequence[str], units: int, phrasing: str
) -> list[Sample]:
    """One sample, or one per query where the phrasing asks for one thing at a time.

    Parameters
    ----------
    sentences : of the essays, for the haystack "essay"; the text begins at a random one and goes on in circles.
    units : sentences, lines of noise, or needles of other keys.
    phrasing : "ruler" or "plain".
    """
    speech = _Ruler() if phrasing == "ruler" else _Plain()
    extra = units if task.haystack == "needles" else 0
    keys = distinct_values(rng, task.key, task.keys + extra, speech.separator)
    values = distinct_values(rng, speech.kind(task.value), (task.keys + extra) * task.values)
    of_key = {key: values[i * task.values : (i + 1) * task.values] for i, key in enumerate(keys)}
    needles = [speech.statement(task.value, key, value) for key in keys for value in of_key[key]]
    hidden = [needles[int(index)] for index in rng.permutation(task.keys * task.values)]
    context = _context(rng, task, sentences, units, hidden, needles[task.keys * task.values :])
    asked = [keys[int(index)] for index in rng.permutation(task.keys)[: task.queries]]
    return speech.samples(task.value, context, asked, of_key)


def _context(
    rng: np.random.Generator,
    task: NeedleTask,
    sentences: Sequence[str],
    units: int,
    hidden: Sequence[str],
    others: Sequence[str],
) -> str:
    if task.haystack == "essay":
        start = int(rng.integers(len(sentences)))
        text = [sentences[(start + index) % len(sentences)] for index in range(units)]
        depths = rng.choice(_DEPTHS, size=len(hidden), replace=False)
        places, joint = np.sort((units * depths / 100).astype(int)), " "
    else:
        text = list(others) if task.haystack == "needles" else [NOISE] * units
        places = np.sort(rng.choice(units + 1, size=len(hidden), replace=units < len(hidden)))
        joint = "\n"
    for place, needle in reversed(list(zip(places.tolist(), hidden, strict=True))):
        text.insert(place, needle)
    return joint.join(text)


class _Ruler:
    """The published wording."""

    separator = "-"

    def kind(self, value: str) -> str:
        return value

    def statement(self, value_kind: str, key: str, value: str) -> str:
        return f"One of the special magic {value_kind} for {key} is: {value}."

    def samples(
        self, value_kind: str, context: str, asked: Sequence[str], of_key: dict[str, list[str]]
    ) -> list[Sample]:
        outputs = tuple(value for key in asked for value in of_key[key])
        several = len(outputs) > 1
        kind = value_kind if several else value_kind.removesuffix("s")
        first, verb, be = ("Some", "are", "are all") if several else ("A", "is", "is")
        query = ", ".join(asked[:-1]) + ", and " + asked[-1] if len(asked) > 1 else asked[0]
        body = (
            f"{first} special magic {kind} {verb} hidden within the following text. Make sure to memorize it. "
            f"I will quiz you about the {kind} afterwards.\n{context}\n"
            f"What {be} the special magic {kind} for {query} mentioned in the provided text?"
        )
        prefix = f" The special magic {kind} for {query} mentioned in the provided text {verb}"
        return [Sample(body, prefix, outputs, _PUBLISHED_REPLY)]


class _Plain:
    """The wording of ``lapidist.evaluation.needle_facts``, which the bundled model was trained on: no preamble, and one
    question at a time."""

    separator = " "

    def kind(self, value: str) -> str:
        return "short numbers" if value == "numbers" else value

    def _name(self, value_kind: str, key: str) -> str:
        # Words name things, which have an article.
        article = "the " if self.separator in key else ""
        return f"secret {value_kind.removesuffix('s')} for {article}{key}"

    def statement(self, value_kind: str, key: str, value: str) -> str:
        return f"The {self._name(value_kind, key)} is {value}."

    def samples(
        self, value_kind: str, context: str, asked: Sequence[str], of_key: dict[str, list[str]]
    ) -> list[Sample]:
        return [
            Sample(
                f"{context}\n\nWhat is the {self._name(value_kind, key)}?",
                f" The {self._name(value_kind, key)} is",
                tuple(of_key[key]),
                None,
            )
            for key in asked
        ]
