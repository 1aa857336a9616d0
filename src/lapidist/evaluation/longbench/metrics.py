"""LongBench's scores of one reply against one reference, each from 0 to 1 (Bai et al., arXiv 2308.14508, table 1)."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from lapidist.evaluation.longbench.rouge import rouge_l

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NUMBER = re.compile(r"\d+")
_COMMENT_MARKS = ("`", "#", "//")

Metric = Callable[[str, str, Sequence[str]], float]
"""Of reply, reference and all classes of the task, which only classification has."""


def answer_f1(reply: str, reference: str, classes: Sequence[str] = ()) -> float:
    """F1 of the words in common, each as often as it stands, without case, punctuation and articles (SQuAD)."""
    own, other = _normalized(reply), _normalized(reference)
    common = sum((Counter(own) & Counter(other)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(own), common / len(other)
    return 2 * precision * recall / (precision + recall)


def _normalized(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def summary_rouge(reply: str, reference: str, classes: Sequence[str] = ()) -> float:
    return rouge_l(reply, reference)


def class_accuracy(reply: str, reference: str, classes: Sequence[str]) -> float:
    """One over the number of classes that the reply names, if the right one is among them.

    Names that are part of the right one do not count. As in the published scorer, of two such names that follow each
    other in the list only the first is left out.
    """
    named = [name for name in classes if name in reply]
    place = 0
    while place < len(named):
        if named[place] in reference and named[place] != reference:
            del named[place]
        place += 1
    return 1 / len(named) if reference in named else 0.0


def number_share(reply: str, reference: str, classes: Sequence[str] = ()) -> float:
    """Of the numbers in the reply the share that is the right one (counting passages)."""
    return _share(reply, str(reference))


def paragraph_share(reply: str, reference: str, classes: Sequence[str] = ()) -> float:
    """Of the numbers in the reply the share that is the reference's ``Paragraph N``."""
    right = re.search(r"Paragraph (\d+)", reference)
    if right is None:
        raise ValueError(f"an answer of passage retrieval must be like 'Paragraph 7', got {reference!r:.80}")
    return _share(reply, right[1])


def _share(reply: str, right: str) -> float:
    numbers = _NUMBER.findall(reply)
    return numbers.count(right) / len(numbers) if numbers else 0.0


def code_similarity(reply: str, reference: str, classes: Sequence[str] = ()) -> float:
    """Edit similarity, in whole percent, of the reply's first line that is neither comment nor fence: the ratio of
    ``difflib``, which ``fuzzywuzzy`` takes where no faster library is installed."""
    lines = reply.lstrip("\n").split("\n")
    line = next((each for each in lines if not any(mark in each for mark in _COMMENT_MARKS)), "")
    return round(100 * SequenceMatcher(None, line, reference).ratio()) / 100
