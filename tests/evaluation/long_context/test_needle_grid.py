"""The clean protocol asks for what ``lapidist.evaluation.needle`` hides, and finds as much."""

from pathlib import Path

import numpy as np
import pytest

from lapidist import LLM
from lapidist.bundled import TINY
from lapidist.evaluation.haystack import haystack_of
from lapidist.evaluation.long_context.evaluation_run import EvaluationRun
from lapidist.evaluation.long_context.generated_prose import generated_prose
from lapidist.evaluation.long_context.methods import parse_methods
from lapidist.evaluation.long_context.needle import NeedleSettings, evaluate_needle
from lapidist.evaluation.long_context.needle_grid import default_lengths, is_exact, needle_cases
from lapidist.evaluation.long_context.run import run_methods
from lapidist.evaluation.long_context.store import OutcomeStore
from lapidist.evaluation.needle import measure_needles
from lapidist.models.load import load_decoder
from lapidist.models.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_directory(TINY)
HAYSTACK = haystack_of(generated_prose(20_000), TOKENIZER)
FULL = parse_methods("full", None)


def test_the_engine_finds_the_needles_that_logits_find() -> None:
    """Two ways to the same numbers: greedy decoding in the engine, and arg-maxima of one pass."""
    lengths, depths = [300, 512], [0.0, 0.5, 1.0]
    for style in ("number", "sentence"):
        expected = measure_needles(
            load_decoder(TINY),
            TOKENIZER,
            HAYSTACK,
            lengths=lengths,
            depths=depths,
            trials=2,
            seed=5,
            style=style,
        )
        [found] = run_methods(
            LLM(TINY),
            FULL,
            ["300", "512"],
            lambda column, style=style: needle_cases(
                HAYSTACK, TOKENIZER, int(column), depths, trials=2, seed=5, style=style
            ),
            OutcomeStore(None, {}),
        )
        np.testing.assert_array_equal(found.grid, expected.grid)
        assert found.mean == pytest.approx(expected.mean)
        assert found.rows == ("0%", "50%", "100%")
        assert found.kept == 1.0


def test_cases_are_as_long_as_asked_and_their_needles_are_there() -> None:
    for distractors in (0, 5):
        for case in needle_cases(HAYSTACK, TOKENIZER, 400, trials=2, distractors=distractors):
            assert len(case.prompt) + case.max_new_tokens == 400
            text = TOKENIZER.decode(case.prompt)
            assert text.count(case.expected[0]) == 1
            assert text.count("The secret number for the ") == 2 + distractors  # the question's too
            assert case.score(f" {case.expected[0]}", case.expected) == 1
            assert case.score(f" {case.expected[0]}0", case.expected) == 0


def test_exact() -> None:
    assert is_exact(" 123 ", ("123",)) == 1
    assert is_exact("1234", ("123",)) == 0


@pytest.mark.parametrize(
    ("context", "lengths"),
    [(2048, (256, 512, 1024, 2048)), (131072, (16384, 32768, 65536, 131072)), (300, (256,)), (100, (100,))],
)
def test_default_lengths(context: int, lengths: tuple[int, ...]) -> None:
    assert default_lengths(context) == lengths


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, llama_directory: Path) -> None:
    told: list[str] = []

    def run(lengths: tuple[int, ...], **settings: object) -> list[str]:
        told.clear()
        evaluate_needle(
            EvaluationRun(
                llama_directory, FULL, tmp_path, progress=lambda label, done, total: told.append(label)
            ),
            NeedleSettings(lengths=lengths, depths=(0, 100), **settings),  # type: ignore[arg-type]
        )
        return sorted(set(told))

    assert run((300, 400)) == ["full, 300", "full, 400"]
    assert run((300, 400, 350)) == ["full, 350"]
    with pytest.raises(ValueError, match="seed is 0 there and 1 now"):
        run((300,), seed=1)


def test_what_cannot_be_asked(llama_directory: Path, tmp_path: Path) -> None:
    def refused(message: str, **settings: object) -> None:
        with pytest.raises(ValueError, match=message):
            evaluate_needle(EvaluationRun(llama_directory, FULL), NeedleSettings(**settings))  # type: ignore[arg-type]

    refused("a prompt of 1000 tokens is longer than the model's context of 512", lengths=(1000,))
    refused("a prompt of 30 tokens is too short", lengths=(30,))
    refused("shorter than the shortest published length", protocol="published")
    refused("leave out trials", protocol="published", lengths=(500,), trials=2)
    refused("does not exist", haystack=tmp_path / "absent")
    refused(r"has no .txt", haystack=tmp_path)
    refused("there are not 60 different needles of style sentence", style="sentence", needles=60)


def test_the_template_flag_stands_in_the_settings(llama_directory: Path) -> None:
    chat = evaluate_needle(EvaluationRun(llama_directory, FULL), NeedleSettings(lengths=(300,), depths=(50,)))
    assert chat.settings["chat_template"] is True
    plain = evaluate_needle(
        EvaluationRun(llama_directory, FULL),
        NeedleSettings(lengths=(300,), depths=(50,), style="number"),
    )
    assert plain.settings["chat_template"] is False
