"""Single-needle retrieval: does the model give the hidden number back, digit for digit, at each depth and length?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from recipes.tiny import words
from recipes.tiny.facts import number, pick, thing
from recipes.tiny.tokenizer import BOS, encode

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Probe:
    """One prompt that ends right before the answer, and the answer's tokens."""

    prompt: list[int]
    answer: list[int]


def needle_sentence(rng: np.random.Generator, style: str) -> tuple[str, str, str]:
    """(statement, question with the reply's opening, answer) in one of the styles `number`, `word`, `sentence`."""
    subject = thing(rng)
    if style == "sentence":
        city = pick(rng, words.CITIES)
        answer = (
            f" eat a {pick(rng, words.FOODS)} and {pick(rng, words.ACTIVITIES)} in "
            f"{pick(rng, words.NOUNS).capitalize()} {pick(rng, words.PLACES)} on a {pick(rng, words.WEATHER)} day"
        )
        lead = f"The best thing to do in {city} is to"
        return f" {lead}{answer}.", f"\n\nWhat is the best thing to do in {city}? {lead}", answer
    kind, value = ("secret number", number(rng, 5)) if style == "number" else ("secret word", pick(rng, words.NOUNS))
    lead = f"The {kind} for the {subject} is"
    return f" {lead} {value}.", f"\n\nWhat is the {kind} for the {subject}? {lead}", f" {value}"


def make_probe(
    rng: np.random.Generator, haystack: np.ndarray, starts: np.ndarray, length: int, depth: float,
    tokenizer: Tokenizer, style: str = "number",
) -> Probe:  # fmt: skip
    """A prompt of exactly `length` tokens, answer excluded, the needle at the sentence start nearest to `depth`."""
    statement, question, answer = needle_sentence(rng, style)
    needle, asked, reply = (encode(tokenizer, text) for text in (statement, question, answer))
    room = length - 1 - len(needle) - len(asked)
    offset = int(rng.integers(len(haystack) - room))
    text = haystack[offset : offset + room].tolist()
    places = [0, *(starts[(starts > offset) & (starts < offset + room)] - offset).tolist(), room]
    place = min(places, key=lambda p: abs(p - depth * room))
    prompt = [tokenizer.token_to_id(BOS), *text[:place], *needle, *text[place:], *asked]
    return Probe(prompt, reply)


@torch.inference_mode()
def exact_matches(forward: Forward, probes: list[Probe]) -> list[bool]:
    """Whether greedy decoding gives each answer. One forward pass: if every answer token is the argmax given the ones
    before it, greedy decoding produces exactly them, and otherwise it does not."""
    matches = []
    for probe in probes:
        tokens = torch.tensor([[*probe.prompt, *probe.answer[:-1]]])
        predicted = forward(tokens)[0, -len(probe.answer) :].argmax(dim=-1)
        matches.append(predicted.tolist() == probe.answer)
    return matches


def accuracy_grid(
    forward: Forward, haystack: np.ndarray, starts: np.ndarray, tokenizer: Tokenizer, lengths: list[int],
    depths: list[float], trials: int, seed: int, style: str = "number", max_positions: int = 2048,
) -> np.ndarray:  # fmt: skip
    """Share of exact matches [depths, lengths]; `length` counts prompt and answer together."""
    grid = np.zeros((len(depths), len(lengths)))
    for column, length in enumerate(lengths):
        for row, depth in enumerate(depths):
            rng = np.random.default_rng([seed, length, int(depth * 1000)])
            probes = [
                make_probe(rng, haystack, starts, min(length, max_positions) - 20, depth, tokenizer, style)
                for _ in range(trials)
            ]
            grid[row, column] = np.mean(exact_matches(forward, probes))
    return grid
