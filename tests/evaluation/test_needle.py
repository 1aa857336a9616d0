"""Needles: what is hidden where, and what counts as found."""

import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist import LLM, SamplingParams
from lapidist.bundled import TINY
from lapidist.evaluation.haystack import Haystack, haystack_of
from lapidist.evaluation.logit_run import LogitRun
from lapidist.evaluation.needle import (
    Probe,
    accuracy_grid,
    answers,
    lengths_within,
    make_probe,
    measure_needles,
)
from lapidist.evaluation.needle_facts import STYLES, Needle, draw_needle, draw_others
from lapidist.models.calibration.default_text import default_texts
from lapidist.models.errors import ChatTemplateError
from lapidist.models.load import load_decoder
from lapidist.models.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_directory(TINY)


@pytest.fixture(scope="module")
def haystack() -> Haystack:
    return haystack_of("".join(islice(default_texts(), 12)), TOKENIZER)


@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(150, 2048),
    depth=st.floats(0, 1),
    style=st.sampled_from(STYLES),
)
@settings(deadline=None, max_examples=40)
def test_a_probe_is_as_long_and_its_needle_as_deep_as_asked(
    haystack: Haystack, seed: int, length: int, depth: float, style: str
) -> None:
    probe = make_probe(np.random.default_rng(seed), haystack, length, depth, TOKENIZER, style)
    needle = draw_needle(np.random.default_rng(seed), style)
    assert len(probe.prompt) + len(probe.answer) == length
    assert TOKENIZER.decode(probe.answer) == needle.answer
    prompt = TOKENIZER.decode(probe.prompt, skip_special_tokens=False)
    between = "<|end|><|assistant|>" if style == "chat" else " "
    assert prompt.startswith("<|bos|><|user|>" if style == "chat" else "<|bos|>")
    assert prompt.endswith(f"\n\n{needle.question}{between}{needle.lead}")
    assert prompt.count(needle.statement) == 1
    # At the sentence start nearest the depth, none of which is farther away than half the longest sentence.
    room = length - len(TOKENIZER.encode(frame(needle)))
    before = len(TOKENIZER.encode(prompt[: prompt.index(needle.statement)], add_special_tokens=False)) - 1
    longest = np.diff(haystack.sentence_starts, prepend=0, append=len(haystack.tokens)).max()
    assert abs(before - depth * room) <= longest / 2 + 4


def frame(needle: Needle) -> str:
    """What a probe holds beside the text, in about as many tokens."""
    return f" {needle.statement}\n\n{needle.question} {needle.lead}{needle.answer}"


@given(
    seed=st.integers(0, 2**32 - 1),
    distractors=st.integers(1, 8),
    depth=st.floats(0, 1),
    style=st.sampled_from(STYLES),
)
@settings(deadline=None, max_examples=25)
def test_other_needles_lie_around_without_the_answer(
    haystack: Haystack, seed: int, distractors: int, depth: float, style: str
) -> None:
    rng = np.random.default_rng(seed)
    probe = make_probe(rng, haystack, 900, depth, TOKENIZER, style, distractors)
    needle = draw_needle(np.random.default_rng(seed), style)
    assert len(probe.prompt) + len(probe.answer) == 900
    prompt = TOKENIZER.decode(probe.prompt)
    assert TOKENIZER.decode(probe.answer) == needle.answer
    assert prompt.count(needle.statement) == 1
    assert prompt.count(needle.lead) == 2  # the question's beginning of a reply is the other
    kind = needle.lead[:12]  # "The secret n", "The best thi"
    assert prompt.count(kind) == 2 + distractors


def test_there_are_only_so_many_needles() -> None:
    rng = np.random.default_rng()
    needle = draw_needle(rng, "sentence")
    others = draw_others(rng, "sentence", needle, 30)
    assert len({each.question for each in [needle, *others]}) == 31
    with pytest.raises(ValueError, match="there are not 101 different needles of style sentence"):
        draw_others(rng, "sentence", needle, 100)


def test_equal_seeds_hide_equal_needles(haystack: Haystack) -> None:
    def asked(seed: int) -> list[Probe]:
        probes: list[Probe] = []
        accuracy_grid(
            lambda probe: probes.append(probe) is None, haystack, TOKENIZER, [200, 300], [0.0, 0.5], 2, seed
        )
        return probes

    seed = int(np.random.default_rng().integers(2**32))
    assert asked(seed) == asked(seed)
    assert asked(seed) != asked(seed + 1)
    assert len(asked(seed)) == 8


def test_the_grid_is_the_share_of_what_is_found(haystack: Haystack) -> None:
    counted = iter([True, False, True, True] + [False] * 4)
    grid = accuracy_grid(lambda probe: next(counted), haystack, TOKENIZER, [200], [0.0, 0.5], 4, seed=0)
    assert grid.tolist() == [[0.75], [0.0]]


def test_found_is_what_greedy_decoding_gives(llama_directory: Path) -> None:
    decoder, rng = load_decoder(llama_directory), np.random.default_rng()
    llm = LLM(llama_directory)
    run = LogitRun(decoder, 512)
    # Answers begin inside a chunk of the prefill, at its end and across it.
    for length in (20, 126, 128, 256, 300):
        prompt = rng.integers(0, decoder.config.vocab_size, length).tolist()
        params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
        [output] = llm.generate({"prompt_token_ids": prompt}, params)
        right = output.outputs[0].token_ids
        assert answers(run, Probe(prompt, right)), length
        for place in range(len(right)):
            wrong = right.copy()
            wrong[place] = (wrong[place] + 1) % decoder.config.vocab_size
            assert not answers(run, Probe(prompt, wrong)), (length, place)


def test_the_bundled_model_finds_needles(haystack: Haystack) -> None:
    """Its card says 99 % in texts like those that it was trained on."""
    told: list[tuple[int, int]] = []
    found = measure_needles(
        load_decoder(TINY),
        TOKENIZER,
        haystack,
        lengths=[256, 512],
        depths=[0.2, 0.8],
        trials=3,
        progress=lambda done, total: told.append((done, total)),
    )
    assert found.mean >= 0.75
    assert (found.lengths, found.depths, found.trials) == ((256, 512), (0.2, 0.8), 3)
    assert np.shape(found.grid) == (2, 2)
    assert told[-1] == (12, 12)


def test_what_cannot_be_hidden(haystack: Haystack, llama_directory: Path) -> None:
    rng = np.random.default_rng()
    with pytest.raises(
        ValueError, match="a prompt of 30 tokens is too short: needle and question alone take"
    ):
        make_probe(rng, haystack, 30, 0.5, TOKENIZER)
    short = haystack_of("The king came. " * 20, TOKENIZER)
    with pytest.raises(ValueError, match=re.escape(f"has {len(short.tokens)} tokens, and a prompt of 500")):
        make_probe(rng, short, 500, 0.5, TOKENIZER)
    with pytest.raises(ValueError, match="a prompt of 700 tokens is longer than the model's context of 512"):
        measure_needles(load_decoder(llama_directory), TOKENIZER, haystack, lengths=[100, 700])
    with pytest.raises(ChatTemplateError, match="no chat template"):
        make_probe(rng, haystack, 300, 0.5, Tokenizer(TOKENIZER.backend), "chat")


@pytest.mark.parametrize(
    ("context", "lengths"), [(4096, (256, 512, 1024, 2048)), (600, (256, 512)), (200, (200,))]
)
def test_default_lengths_fit_the_context(context: int, lengths: tuple[int, ...]) -> None:
    assert lengths_within(context, None) == lengths
