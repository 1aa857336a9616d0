"""Needles asked for through the engine, so that prompt filters act on them: the clean protocol.

Facts that nobody can guess, exact answers, the model's chat template where it has one; the probes are those of
``lapidist.evaluation.needle``.
"""

from collections.abc import Sequence

from lapidist.evaluation.haystack import Haystack
from lapidist.evaluation.long_context.case import Case
from lapidist.evaluation.needle import cell_probes
from lapidist.models.tokenizer import Tokenizer

DEFAULT_DEPTHS = (0.0, 0.11, 0.22, 0.33, 0.44, 0.56, 0.67, 0.78, 0.89, 1.0)
_DEFAULT_LENGTHS = 4


def default_lengths(context: int) -> tuple[int, ...]:
    """The last four powers of two up to ``context``, or the context alone if it is less than 256."""
    lengths = [2**power for power in range(8, context.bit_length()) if 2**power <= context]
    return tuple(lengths[-_DEFAULT_LENGTHS:]) or (context,)


def needle_cases(
    haystack: Haystack,
    tokenizer: Tokenizer,
    length: int,
    depths: Sequence[float] = DEFAULT_DEPTHS,
    *,
    trials: int = 1,
    seed: int = 0,
    style: str = "number",
    distractors: int = 0,
) -> list[Case]:
    """``trials`` cases per depth, of ``length`` tokens with the answer. The reply has room for just the answer, so
    that a right one is that text and nothing else.

    Raises
    ------
    ValueError, ChatTemplateError : as ``needle.make_probe`` does.
    """
    return [
        Case(
            f"{depth:.0%}",
            probe.prompt,
            len(probe.answer),
            (tokenizer.decode(probe.answer).strip(),),
            is_exact,
        )
        for depth in depths
        for probe in cell_probes(haystack, tokenizer, length, depth, trials, seed, style, distractors)
    ]


def is_exact(response: str, expected: Sequence[str]) -> float:
    """1 if the response is the expected text, white space at its ends aside."""
    return float(response.strip() == expected[0])
