"""Single-needle retrieval: does the model give a hidden number back exactly, at each depth and length?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from recipes.tiny import words
from recipes.tiny.corpus import sentence_starts
from recipes.tiny.facts import number, outing, pick, thing
from recipes.tiny.tokenizer import ASSISTANT, BOS, END, USER, encode

# Token ids [1, tokens] to logits [1, n, vocab] of the last n positions, n no less than the answer's length.
Forward = Callable[[Tensor], Tensor]
STYLES = ["number", "word", "sentence", "chat"]


@dataclass(frozen=True)
class Haystack:
    """Text to hide needles in: token ids [tokens] and the ascending positions where its sentences start."""

    tokens: np.ndarray
    sentence_starts: np.ndarray


def haystack_of(text: str, tokenizer: Tokenizer) -> Haystack:
    tokens = np.asarray(encode(tokenizer, text), dtype=np.uint16)
    return Haystack(tokens, sentence_starts(tokens, tokenizer))


@dataclass(frozen=True)
class Probe:
    """One prompt that ends right before the answer, and the answer's tokens."""

    prompt: list[int]
    answer: list[int]


def needle_sentence(rng: np.random.Generator, style: str) -> tuple[str, str, str]:
    """(statement, question with the reply's opening, answer) in one of STYLES."""
    if style == "sentence":
        city, answer = pick(rng, words.CITIES), outing(rng)
        lead = f"The best thing to do in {city} is to"
        return f" {lead}{answer}.", f"\n\nWhat is the best thing to do in {city}? {lead}", answer
    between = f"{END}{ASSISTANT}" if style == "chat" else " "
    kind = "secret word" if style == "word" else "secret number"
    value = pick(rng, words.NOUNS) if style == "word" else number(rng, 5)
    subject = thing(rng)
    lead = f"The {kind} for the {subject} is"
    return f" {lead} {value}.", f"\n\nWhat is the {kind} for the {subject}?{between}{lead}", f" {value}"


def make_probe(
    rng: np.random.Generator, haystack: Haystack, length: int, depth: float, tokenizer: Tokenizer,
    style: str = "number",
) -> Probe:  # fmt: skip
    """Prompt and answer of `length` tokens together, the needle at the sentence start nearest `depth`."""
    statement, question, answer = needle_sentence(rng, style)
    needle, asked, reply = (encode(tokenizer, text) for text in (statement, question, answer))
    opening = encode(tokenizer, f"{BOS}{USER}" if style == "chat" else BOS)
    room = length - len(opening) - len(needle) - len(asked) - len(reply)
    offset = int(rng.integers(len(haystack.tokens) - room))
    text, starts = haystack.tokens[offset : offset + room].tolist(), haystack.sentence_starts
    places = [0, *(starts[(starts > offset) & (starts < offset + room)] - offset).tolist(), room]
    place = min(places, key=lambda p: abs(p - depth * room))
    return Probe([*opening, *text[:place], *needle, *text[place:], *asked], reply)


@torch.inference_mode()
def exact_matches(forward: Forward, probes: list[Probe]) -> list[bool]:
    """Whether greedy decoding gives each answer. One forward pass: if every answer token is the argmax
    given the ones before it, greedy decoding produces exactly them, and otherwise it does not.
    """
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
    grid = np.zeros((len(depths), len(lengths)))
    for column, length in enumerate(lengths):
        for row, depth in enumerate(depths):
            rng = np.random.default_rng([seed, length, int(depth * 1000)])
            probes = [make_probe(rng, haystack, length, depth, tokenizer, style) for _ in range(trials)]
            grid[row, column] = np.mean(exact_matches(forward, probes))
    return grid
