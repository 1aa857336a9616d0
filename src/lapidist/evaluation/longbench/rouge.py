"""ROUGE-L as LongBench takes it: the F-measure of the ``rouge`` package (1.0.1), over whole summaries.

A text is its sentences, cut at full stops. Of each sentence of the reference and each of the summary a longest common
subsequence is taken; the union of their words is held against the distinct words of either text. That is not the
ROUGE-L of a pair of word sequences (Lin, 2004), whose figures differ.
"""

from collections.abc import Sequence


def rouge_l(summary: str, reference: str) -> float:
    """F-measure from 0 to 1; 0 if either text has no words."""
    summary_sentences, reference_sentences = _sentences(summary), _sentences(reference)
    if not summary_sentences or not reference_sentences:
        return 0.0
    common: set[str] = set()
    for own in reference_sentences:
        for other in summary_sentences:
            common.update(longest_common_subsequence(own, other))
    recall = len(common) / len({word for sentence in reference_sentences for word in sentence})
    precision = len(common) / len({word for sentence in summary_sentences for word in sentence})
    return 2 * precision * recall / (precision + recall + 1e-8)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Of several longest ones that which is found from the ends, where a word of ``second`` is dropped rather than one
    of ``first`` if that costs nothing."""
    lengths = [[0] * (len(second) + 1)]
    for word in first:
        above, row = lengths[-1], [0]
        for column, other in enumerate(second):
            row.append(above[column] + 1 if word == other else max(row[column], above[column + 1]))
        lengths.append(row)
    found: list[str] = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            found.append(first[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def _sentences(text: str) -> list[list[str]]:
    """Words of each sentence; one that is only white space counts as a sentence with the empty word, as there."""
    return [part.split() or [""] for part in text.split(".") if part] if text.strip(" .\n\t") else []
