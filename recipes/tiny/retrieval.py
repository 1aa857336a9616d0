"""Single-needle retrieval for models that are no Lapidist decoders: the one in training, and those of `transformers`.

The probes are `lapidist.evaluation.needle`'s.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from lapidist.evaluation import haystack as haystacks
from lapidist.evaluation import needle
from lapidist.evaluation.haystack import Haystack
from lapidist.evaluation.needle import Probe
from lapidist.evaluation.needle_facts import STYLES
from recipes.tiny.tokenizer import runtime_tokenizer

__all__ = [
    "STYLES",
    "Forward",
    "Haystack",
    "Probe",
    "accuracy_grid",
    "exact_matches",
    "haystack_of",
    "make_probe",
]

# Token ids [1, tokens] to logits [1, n, vocab] of the last n positions, n no less than the answer's length.
Forward = Callable[[Tensor], Tensor]


def haystack_of(text: str, tokenizer: Tokenizer) -> Haystack:
    return haystacks.haystack_of(text, runtime_tokenizer(tokenizer))


def make_probe(
    rng: np.random.Generator, haystack: Haystack, length: int, depth: float, tokenizer: Tokenizer,
    style: str = "number",
) -> Probe:  # fmt: skip
    """Prompt and answer of `length` tokens together, the needle at the sentence start nearest `depth`."""
    return needle.make_probe(rng, haystack, length, depth, runtime_tokenizer(tokenizer), style)


@torch.inference_mode()
def exact_matches(forward: Forward, probes: list[Probe]) -> list[bool]:
    """Whether greedy decoding gives each answer; why one pass tells, see `lapidist.evaluation.needle.answers`."""
    matches = []
    for probe in probes:
        tokens = torch.tensor([[*probe.prompt, *probe.answer[:-1]]])
        predicted = forward(tokens)[0, -len(probe.answer) :].argmax(dim=-1)
        matches.append(predicted.tolist() == probe.answer)
    return matches


def accuracy_grid(
    forward: Forward, haystack: Haystack, tokenizer: Tokenizer, lengths: list[int], depths: list[float],
    trials: int, seed: int, style: str = "number",
) -> np.ndarray:  # fmt: skip
    """Share of exact matches [depths, lengths] over `trials` probes each."""
    return needle.accuracy_grid(
        lambda probe: exact_matches(forward, [probe])[0],
        haystack, runtime_tokenizer(tokenizer), lengths, depths, trials, seed, style,
    )  # fmt: skip
