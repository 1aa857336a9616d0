"""RULER's aggregation tasks: which words of a list are common, which coded words are frequent?"""

from itertools import chain, repeat

import numpy as np
from scipy.special import zeta

from lapidist.evaluation.ruler.sample import Sample
from lapidist.evaluation.ruler.values import LOWER, distinct_letters, distinct_words

COMMON = 10
_COMMON_REPLY, _FREQUENT_REPLY = 120, 50
_ALPHA = 2.0  # of the zeta distribution
FEWEST_FREQUENT = 60  # below, the third and the fourth rank are as frequent


def common_words_sample(rng: np.random.Generator, units: int, length: int) -> Sample:
    """A numbered list of ``units`` different words, of which ten are common.

    As published, common words stand 30 times and others 3 times, and a shorter example comes first; in prompts of
    fewer than 4096 tokens it is 6 times and once. Below 2048 tokens the published prompt does not fit: there are no
    example then and 3 repetitions, a shortening of ours.
    """
    if length >= 4096:
        example, repeats = (40, 10, 3), (30, 3)
    elif length >= 2048:
        example, repeats = (20, 3, 1), (6, 1)
    else:
        example, repeats = None, (3, 1)
    body = ""
    if example is not None:
        context, common = _word_list(rng, *example)
        body = f"{_common_question(context)}{_COMMON_PREFIX} {_numbered(common)}\n"
    context, common = _word_list(rng, units, *repeats)
    return Sample(body + _common_question(context), _COMMON_PREFIX, tuple(common), _COMMON_REPLY)


_COMMON_PREFIX = " Answer: The top 10 words that appear most often in the list are:"


def _word_list(
    rng: np.random.Generator, count: int, common_repeats: int, other_repeats: int
) -> tuple[str, list[str]]:
    words = distinct_words(rng, count)
    common, others = words[:COMMON], words[COMMON:]
    listed = common * common_repeats + others * other_repeats
    return _numbered([listed[int(index)] for index in rng.permutation(len(listed))]), common


def _numbered(words: list[str]) -> str:
    return " ".join(f"{index}. {word}" for index, word in enumerate(words, 1))


def _common_question(context: str) -> str:
    return (
        "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones "
        f"that appear most often.\n{context}\nQuestion: What are the 10 most common words in the above list?"
    )


def frequent_words_sample(rng: np.random.Generator, units: int, length: int) -> Sample:
    """About ``units`` coded words of six letters whose k-th most frequent stands ``units / (zeta(2) k^2)`` times; the
    most frequent is dots, and the next three are asked for."""
    vocabulary = ["...", *distinct_letters(rng, max(length // 50, 8), 6, LOWER)]
    ranks = np.arange(1, len(vocabulary) + 1)
    counts = (units * ranks**-_ALPHA / zeta(_ALPHA)).astype(int)
    words = list(
        chain.from_iterable(repeat(word, int(n)) for word, n in zip(vocabulary, counts, strict=True))
    )
    context = " ".join(words[int(index)] for index in rng.permutation(len(words)))
    body = (
        "Read the following coded text and track the frequency of each coded word. Find the three most frequently "
        f"appeared coded words. {context}\nQuestion: Do not provide any explanation. Please ignore the dots '....'. "
        "What are the three most frequently appeared words in the above coded text?"
    )
    prefix = " Answer: According to the coded text above, the three most frequently appeared words are:"
    return Sample(body, prefix, tuple(vocabulary[1:4]), _FREQUENT_REPLY)
