"""Single-needle retrieval: does a model give a hidden fact back exactly, at each depth and length?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lapidist.evaluation.haystack import Haystack
from lapidist.evaluation.logit_run import LogitRun
from lapidist.evaluation.needle_facts import draw_needle, draw_others
from lapidist.evaluation.prompt_frame import chat_frame, plain_frame
from lapidist.evaluation.windows import Window
from lapidist.models.decoder import Decoder
from lapidist.models.tokenizer import Tokenizer

DEFAULT_LENGTHS = (256, 512, 1024, 2048)
DEFAULT_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Probe:
    """One prompt that ends right before the answer, and the answer's tokens."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class NeedleAccuracy:
    """Share of answers that are right to the last token.

    Attributes
    ----------
    lengths : of prompt and answer together, in tokens.
    depths : of the needle: 0 is the beginning of the text and 1 its end, right before the question.
    grid : ``[depths][lengths]``, each from ``trials`` probes.
    """

    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    trials: int
    grid: tuple[tuple[float, ...], ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.grid))


def measure_needles(
    decoder: Decoder,
    tokenizer: Tokenizer,
    haystack: Haystack,
    *,
    lengths: Sequence[int] | None = None,
    depths: Sequence[float] = DEFAULT_DEPTHS,
    trials: int = 5,
    seed: int = 0,
    style: str = "number",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> NeedleAccuracy:
    """Ask ``decoder`` for the needles; equal seeds hide equal needles.

    Parameters
    ----------
    lengths : None is those of 256, 512, 1024 and 2048 that the model's context holds.
    style : one of ``needle_facts.STYLES``.
    progress : called with the probes asked and all.

    Raises
    ------
    ValueError : a length exceeds the context, is too short for a needle or too long for ``haystack``.
    """
    context = decoder.config.max_position_embeddings
    lengths = lengths_within(context, lengths)
    run = LogitRun(decoder, max(lengths))
    asked, total = 0, len(lengths) * len(depths) * trials
    progress(asked, total)

    def found(probe: Probe) -> bool:
        nonlocal asked
        is_found = answers(run, probe)
        asked += 1
        progress(asked, total)
        return is_found

    grid = accuracy_grid(found, haystack, tokenizer, lengths, depths, trials, seed, style)
    return NeedleAccuracy(lengths, tuple(depths), trials, tuple(map(tuple, grid.tolist())))


def lengths_within(context: int, lengths: Sequence[int] | None) -> tuple[int, ...]:
    """``lengths``, or the usual ones that fit; raises ValueError if one does not."""
    if lengths is None:
        return tuple(length for length in DEFAULT_LENGTHS if length <= context) or (context,)
    if too_long := [length for length in lengths if length > context]:
        raise ValueError(
            f"a prompt of {max(too_long)} tokens is longer than the model's context of {context}"
        )
    return tuple(lengths)


def answers(run: LogitRun, probe: Probe) -> bool:
    """Whether greedy decoding gives the answer. One forward pass: if every answer token is the likeliest given the
    ones before it, greedy decoding produces exactly them, and otherwise it does not."""
    window = Window([*probe.prompt, *probe.answer], len(probe.prompt), byte_count=0, is_full=True)
    return all(bool((logits.argmax(-1) == targets).all()) for targets, logits in run.blocks(window))


def answer_quality(run: LogitRun, probe: Probe) -> tuple[bool, float]:
    """As ``answers``, and the mean log-probability of the answer's tokens in nats."""
    window = Window([*probe.prompt, *probe.answer], len(probe.prompt), byte_count=0, is_full=True)
    exact, found = True, []
    for targets, logits in run.blocks(window):
        exact &= bool((logits.argmax(-1) == targets).all())
        found.append(logits.log_softmax(-1).gather(1, targets[:, None])[:, 0])
    return exact, float(torch.cat(found).mean())


def accuracy_grid(
    found: Callable[[Probe], bool],
    haystack: Haystack,
    tokenizer: Tokenizer,
    lengths: Sequence[int],
    depths: Sequence[float],
    trials: int,
    seed: int,
    style: str = "number",
) -> np.ndarray:
    """Share of probes, ``[depths, lengths]`` with ``trials`` each, of which ``found`` says that they are answered."""
    grid = np.zeros((len(depths), len(lengths)))
    for column, length in enumerate(lengths):
        for row, depth in enumerate(depths):
            probes = cell_probes(haystack, tokenizer, length, depth, trials, seed, style)
            grid[row, column] = np.mean([found(probe) for probe in probes])
    return grid


def cell_probes(
    haystack: Haystack,
    tokenizer: Tokenizer,
    length: int,
    depth: float,
    trials: int,
    seed: int,
    style: str = "number",
    distractors: int = 0,
) -> list[Probe]:
    """The probes of one cell of a grid; equal arguments give equal ones."""
    rng = np.random.default_rng([seed, length, int(depth * 1000)])
    return [make_probe(rng, haystack, length, depth, tokenizer, style, distractors) for _ in range(trials)]


def make_probe(
    rng: np.random.Generator,
    haystack: Haystack,
    length: int,
    depth: float,
    tokenizer: Tokenizer,
    style: str = "number",
    distractors: int = 0,
) -> Probe:
    """Prompt and answer of ``length`` tokens together, the needle at the sentence start nearest ``depth``.

    Parameters
    ----------
    distractors : needles about other things, at random sentence starts.

    Raises
    ------
    ValueError : ``length`` is too short for the needles, or too long for ``haystack``.
    ChatTemplateError : ``style`` is chat, and the checkpoint has no usable template.
    """
    needle = draw_needle(rng, style)
    needles = [needle, *draw_others(rng, style, needle, distractors)]
    frame = chat_frame(tokenizer) if style == "chat" else plain_frame(tokenizer, between=" ")
    statements = [tokenizer.encode(f" {each.statement}", add_special_tokens=False) for each in needles]
    question = f"\n\n{needle.question}{frame.between}{needle.lead}"
    asked, answer = _split(tokenizer, question, needle.answer)
    room = length - len(frame.opening) - sum(map(len, statements)) - len(asked) - len(answer)
    if room < 0:
        what = "needle" if distractors == 0 else f"{1 + distractors} needles"
        raise ValueError(
            f"a prompt of {length} tokens is too short: {what} and question alone take {length - room}"
        )
    if room >= len(haystack.tokens):
        raise ValueError(
            f"the text to hide needles in has {len(haystack.tokens)} tokens, and a prompt of {length} needs more "
            f"than {room}: give more text, or shorter prompts"
        )
    offset = int(rng.integers(len(haystack.tokens) - room))
    text, starts = haystack.tokens[offset : offset + room].tolist(), haystack.sentence_starts
    places = [0, *(starts[(starts > offset) & (starts < offset + room)] - offset).tolist(), room]
    chosen = [min(places, key=lambda place: abs(place - depth * room))]
    chosen += [places[int(rng.integers(len(places)))] for _ in range(distractors)]
    return Probe([*frame.opening, *_hidden(text, chosen, statements), *asked], answer)


def _hidden(text: list[int], places: list[int], statements: list[list[int]]) -> list[int]:
    """``text`` with each of the statements at its place."""
    found, done = [], 0
    for place, statement in sorted(zip(places, statements, strict=True), key=lambda each: each[0]):
        found += text[done:place] + statement
        done = place
    return found + text[done:]


def _split(tokenizer: Tokenizer, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Tokens of the two as one text, parted where ``prompt`` alone has other tokens: one may straddle the border."""
    alone = tokenizer.encode(prompt, add_special_tokens=False)
    whole = tokenizer.encode(prompt + answer, add_special_tokens=False)
    same = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), len(alone))
    return whole[:same], whole[same:]
