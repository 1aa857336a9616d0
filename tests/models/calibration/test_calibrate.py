"""Calibration end to end: what is chosen holds on other text, and what cannot hold is refused."""

import dataclasses
import random
from pathlib import Path

import pytest

from lapidist import LLM, SamplingParams
from lapidist.bundled import TINY
from lapidist.kernels.phi import MARGIN
from lapidist.kernels.softmax import SoftmaxMode
from lapidist.models.calibration.calibrate import Calibration, calibrate_attention
from lapidist.models.calibration.checkpoint_files import write_softmax
from lapidist.models.calibration.held_out import GOAL, check_held_out
from lapidist.models.load import load_decoder
from lapidist.models.softmax_config import SoftmaxConfig
from lapidist.models.tokenizer import Tokenizer
from tests.attention_checkpoints import HEADS, write_shifted_qwen2, write_wide_llama
from tests.checkpoints import write_random_llama

FEW = {"tokens": 800, "context": 150}


def calibrate(directory: Path, **options: int) -> Calibration:
    decoder = load_decoder(directory, softmax_mode=SoftmaxMode.LAZY)
    return calibrate_attention(decoder, Tokenizer.from_directory(directory), **(FEW | options))


def greedy(directory: Path, mode: str) -> tuple[list[list[int]], float]:
    """Tokens after a few prompts, and the share of rows that was computed again."""
    llm = LLM(directory, dtype="float32", attention_softmax=mode, max_num_seqs=4, max_num_batched_tokens=37)
    rng = random.Random(3)
    prompts = [
        {"prompt_token_ids": [rng.randrange(5, 300) for _ in range(length)]} for length in (1, 9, 60, 140)
    ]
    outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=24, ignore_eos=True))
    stats = llm.engine.stats()
    return [output.outputs[0].token_ids for output in outputs], (
        sum(stats.attention_rows_recomputed) / stats.attention_rows
    )


def values(calibration: Calibration) -> set[float]:
    assert calibration.choice.phi is not None
    return {value for layer in calibration.choice.phi for value in layer}


def assert_round_trip(directory: Path, calibration: Calibration) -> None:
    """Written and served: mode unified gives the tokens of mode online, and computes few rows again."""
    assert calibration.succeeded
    write_softmax(directory, calibration.softmax)
    assert load_decoder(directory).config.attention_softmax == calibration.softmax
    tokens, rate = greedy(directory, "auto")
    assert rate <= GOAL
    assert tokens == greedy(directory, "online")[0]
    assert tokens == greedy(directory, "lazy")[0]


def test_ordinary_scores_take_zero(tmp_path: Path) -> None:
    directory = write_random_llama(tmp_path / "model")
    calibration = calibrate(directory)
    assert values(calibration) == {0.0}
    assert_round_trip(directory, calibration)


@pytest.mark.parametrize("shift", [150.0, -120.0])
def test_shifted_scores_take_one_number(tmp_path: Path, shift: float) -> None:
    directory = write_shifted_qwen2(tmp_path / "model", [shift] * HEADS)
    calibration = calibrate(directory)
    [phi] = values(calibration)
    assert abs(phi - shift) < 40
    assert min(map(min, calibration.slack or [])) >= MARGIN - 0.01
    assert calibration.held_out is not None
    assert calibration.held_out.rate == 0
    assert_round_trip(directory, calibration)


def test_heads_shifted_apart_take_one_number_each(tmp_path: Path) -> None:
    shifts = [120.0, -120.0, 0.0, 60.0, -60.0, 200.0]
    directory = write_shifted_qwen2(tmp_path / "model", shifts)
    calibration = calibrate(directory)
    assert len(values(calibration)) > HEADS
    for layer in calibration.choice.phi or ():
        assert [abs(phi - shift) < 40 for phi, shift in zip(layer, shifts, strict=True)] == [True] * HEADS
    assert_round_trip(directory, calibration)


def test_a_head_too_wide_is_refused_and_named(tmp_path: Path) -> None:
    directory = write_wide_llama(tmp_path / "model", layer=1, kv_head=0, factor=60)
    calibration = calibrate(directory)
    assert not calibration.succeeded
    assert {(misfit.layer, misfit.head) for misfit in calibration.choice.misfits} == {(1, 0), (1, 1)}
    assert calibration.held_out is None
    assert calibration.slack is None
    assert calibration.softmax == SoftmaxConfig.uncalibrated(2, 4)
    # Forced all the same, mode unified costs repetitions and nothing else.
    tokens, rate = greedy(directory, "unified")
    assert rate > GOAL
    assert tokens == greedy(directory, "online")[0]


def test_the_bundled_model(tmp_path: Path) -> None:
    decoder = load_decoder(TINY, softmax_mode=SoftmaxMode.LAZY)
    told = []
    calibration = calibrate_attention(
        decoder,
        Tokenizer.from_directory(TINY),
        tokens=4000,
        context=1100,
        progress=lambda done, total: told.append((done, total)),
    )
    assert calibration.succeeded
    held_out = calibration.held_out
    assert held_out is not None
    assert held_out.rate <= GOAL
    assert max(held_out.by_layer) <= GOAL
    assert set(held_out.by_bucket) == {0, 1, 2, 3}
    assert max(held_out.by_bucket.values()) <= GOAL
    assert told[-1] == (calibration.tokens, calibration.tokens)
    assert told == sorted(told)
    assert int(decoder.recomputed_rows.sum()) == 0, "the decoder that was given stays as it was"


def test_a_wrong_phi_costs_repetitions_and_nothing_else(tmp_path: Path) -> None:
    directory = write_random_llama(tmp_path / "model")
    expected, _ = greedy(directory, "online")
    for phi in (400.0, -400.0):
        write_softmax(directory, SoftmaxConfig(SoftmaxMode.UNIFIED, ((phi,) * 4,) * 2))
        assert greedy(directory, "auto") == (expected, 1.0)
        assert greedy(directory, "lazy") == (expected, 0.0)
    # One layer and head only.
    write_softmax(directory, SoftmaxConfig(SoftmaxMode.UNIFIED, ((0.0,) * 4, (0.0, 0.0, 400.0, 0.0))))
    assert greedy(directory, "auto") == (expected, 1 / 8)


def test_held_out_rows_are_counted_where_they_occur(tmp_path: Path) -> None:
    decoder = load_decoder(write_random_llama(tmp_path / "model"))
    wrong = SoftmaxConfig(SoftmaxMode.UNIFIED, ((0.0, 0.0, 0.0, 0.0), (0.0, -400.0, 400.0, 0.0)))
    held_out = check_held_out(decoder.with_softmax(wrong), [list(range(300)), list(range(100))])
    assert held_out.tokens[:4].tolist() == [228, 128, 44, 0]
    assert held_out.recomputed[:, :4].tolist() == [[0, 0, 0, 0], [456, 256, 88, 0]]
    assert held_out.rate == 0.25
    assert held_out.by_layer == [0.0, 0.5]
    assert held_out.by_bucket == {0: 0.25, 1: 0.25, 2: 0.25}


def test_a_miss_on_held_out_text_leaves_mode_lazy(tmp_path: Path) -> None:
    calibration = calibrate(write_random_llama(tmp_path / "model"))
    assert calibration.held_out is not None
    missed = dataclasses.replace(calibration.held_out, recomputed=calibration.held_out.recomputed + 1)
    missed = dataclasses.replace(calibration, held_out=missed)
    assert not missed.succeeded
    assert missed.softmax.mode == SoftmaxMode.LAZY


def test_rare_outliers_do_not_refuse_a_model(tmp_path: Path) -> None:
    """A row in thousands may lie outside."""
    from lapidist.models.calibration.calibrate import _choose

    calibration = calibrate(write_random_llama(tmp_path / "model"), tokens=3000)
    statistics = calibration.statistics
    statistics.lowest_by_context[1, 2, 0] = -300.0
    statistics._histogram[1, 2, 0] += 1
    assert _choose(statistics, calibration.bands).phi is not None
    statistics._histogram[1, 2, 0] += 200
    assert [misfit.head for misfit in _choose(statistics, calibration.bands).misfits] == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": 0}, "tokens must be at least"),
        ({"context": 1}, "context must be from 2 to the model's 512 tokens"),
        ({"context": 513}, "context must be from 2 to the model's 512 tokens"),
    ],
)
def test_options_out_of_range(llama_directory: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibrate(llama_directory, **options)
