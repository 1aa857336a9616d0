"""Single-needle retrieval: does a model give a hidden fact back exactly, at each depth and length?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lapidist.evaluation.haystack import Haystack
from lapidist.evaluation.logit_run import LogitRun
from lapidist.evaluation.needle_facts import draw_needle
from lapidist.evaluation.windows import Window
from lapidist.models.calibration.token_sequences import opening_tokens
from lapidist.models.decoder import Decoder
from lapidist.models.tokenizer import Tokenizer

_CONTENT = "\ue000"  # stands for a user's message in a rendered chat template

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
            rng = np.random.default_rng([seed, length, int(depth * 1000)])
            probes = [make_probe(rng, haystack, length, depth, tokenizer, style) for _ in range(trials)]
            grid[row, column] = np.mean([found(probe) for probe in probes])
    return grid


def make_probe(
    rng: np.random.Generator,
    haystack: Haystack,
    length: int,
    depth: float,
    tokenizer: Tokenizer,
    style: str = "number",
) -> Probe:
    """Prompt and answer of ``length`` tokens together, the needle at the sentence start nearest ``depth``.

    Raises
    ------
    ValueError : ``length`` is too short for the needle, or too long for ``haystack``.
    ChatTemplateError : ``style`` is chat, and the checkpoint has no usable template.
    """
    needle = draw_needle(rng, style)
    opening, between = _chat_frame(tokenizer) if style == "chat" else (opening_tokens(tokenizer), " ")
    statement = tokenizer.encode(f" {needle.statement}", add_special_tokens=False)
    question = f"\n\n{needle.question}{between}{needle.lead}"
    asked, answer = _split(tokenizer, question, needle.answer)
    room = length - len(opening) - len(statement) - len(asked) - len(answer)
    if room < 0:
        raise ValueError(
            f"a prompt of {length} tokens is too short: needle and question alone take {length - room}"
        )
    if room >= len(haystack.tokens):
        raise ValueError(
            f"the text to hide needles in has {len(haystack.tokens)} tokens, and a prompt of {length} needs more "
            f"than {room}: give more text, or shorter prompts"
        )
    offset = int(rng.integers(len(haystack.tokens) - room))
    text, starts = haystack.tokens[offset : offset + room].tolist(), haystack.sentence_starts
    places = [0, *(starts[(starts > offset) & (starts < offset + room)] - offset).tolist(), room]
    place = min(places, key=lambda place: abs(place - depth * room))
    return Probe([*opening, *text[:place], *statement, *text[place:], *asked], answer)


def _split(tokenizer: Tokenizer, prompt: str, answer: str) -> tuple[list[int], list[int]]:
    """Tokens of the two as one text, parted where ``prompt`` alone has other tokens: one may straddle the border."""
    alone = tokenizer.encode(prompt, add_special_tokens=False)
    whole = tokenizer.encode(prompt + answer, add_special_tokens=False)
    same = next((i for i, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), len(alone))
    return whole[:same], whole[same:]


def _chat_frame(tokenizer: Tokenizer) -> tuple[list[int], str]:
    """What a chat template puts before a user's message, as tokens, and between it and the reply."""
    before, _, after = tokenizer.apply_chat_template([{"role": "user", "content": _CONTENT}]).partition(
        _CONTENT
    )
    return tokenizer.encode(before, add_special_tokens=False), after
