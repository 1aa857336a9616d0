"""The sweep over layers: what it counts, what it chooses, and that its scores are those of the engine's filter."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lapidist import LLM, SamplingParams
from lapidist.bundled import TINY
from lapidist.engine.prompt_filters.adaptive import choose, most_tokens
from lapidist.evaluation.filter_calibration import (
    FilterCalibration,
    _find,
    calibrate_filter,
    calibration_haystack,
    calibration_lengths,
)
from lapidist.evaluation.filter_policy_search import gemfilter_choice, scores_by_layer
from lapidist.evaluation.needle import Probe
from lapidist.models.filter_config import AdaptivePolicy, FilterDefaults, GemFilterPolicy
from lapidist.models.load import load_decoder
from lapidist.models.tokenizer import Tokenizer

LENGTH = 160


def calibration(
    accuracy: list[list[float]],
    full: float = 1.0,
    goal: float = 0.95,
    policy: GemFilterPolicy = GemFilterPolicy(),
) -> FilterCalibration:
    array = np.array(accuracy)
    keeps = (0.1, 0.2, 0.4)[: array.shape[1]]
    # Late layers and large shares gain little.
    gain = 1 / (np.arange(len(array))[:, None] / len(array) + np.array(keeps))
    return FilterCalibration((100,), 10, keeps, goal, full, array, array, array, array, gain, policy)


@pytest.mark.parametrize(
    ("accuracy", "full", "expected"),
    [
        ([[0, 0.5], [0.2, 0.96], [0.94, 1.0]], 1.0, FilterDefaults(1, 0.2)),
        ([[0, 0.5, 0.5], [0.2, 0.5, 0.99], [1.0, 1.0, 1.0]], 1.0, FilterDefaults(1, 0.4)),
        ([[0, 0.5], [0.95, 0.96], [0.95, 1.0]], 1.0, FilterDefaults(1, 0.1)),
        ([[0, 0.5], [0.2, 0.5]], 0.5, FilterDefaults(0, 0.2)),
        ([[0, 0.5], [0.2, 0.5]], 1.0, None),
        ([[0, 0], [0, 0]], 0.0, None),
    ],
)
def test_what_gains_the_most_of_what_reaches_the_goal(
    accuracy: list[list[float]], full: float, expected: FilterDefaults | None
) -> None:
    assert calibration(accuracy, full).defaults == expected


def test_the_published_policy_is_not_written_down() -> None:
    own = GemFilterPolicy(pool=13)
    assert calibration([[0.5], [1.0]], policy=own).defaults == FilterDefaults(1, 0.1, own)
    assert calibration([[0.5], [0.0]], policy=own).defaults is None


def test_lengths() -> None:
    assert calibration_lengths(2048, 18) == (512, 1024, 2048)
    assert calibration_lengths(300, 18) == (150, 300)
    assert calibration_lengths(300, 40) == (300,)
    assert calibration_lengths(100, 18) == (100,)


def test_scores_are_those_of_the_engine(llama_directory: Path) -> None:
    decoder = load_decoder(llama_directory, torch.float32, torch.device("cpu"))
    ids = torch.randint(3, 300, (90,), generator=torch.Generator().manual_seed(0)).tolist()
    llm = LLM(llama_directory, dtype="float32")

    def kept(given: dict[str, Any]) -> list[int] | None:
        [output] = llm.generate({"prompt_token_ids": ids}, SamplingParams(max_tokens=1), prompt_filter=given)
        assert output.prompt_filter is not None
        return output.prompt_filter.kept

    for policy in (
        GemFilterPolicy(),
        GemFilterPolicy(softmax=True, window=4, pool=3, keep_last=2),
        GemFilterPolicy(chunk=4),
    ):
        scoring = policy.softmax, policy.window
        for (layer, _, _), scores in scores_by_layer(decoder, ids, [scoring]):
            given = {"method": "gemfilter", "layer": layer, "keep": 0.1, **vars(policy)}
            assert kept(given) == gemfilter_choice(scores, policy, 0.1).tolist()
    adaptive = AdaptivePolicy(least=8, mass=0.5, agreement=0.0, pool=3, keep_last=4)
    for (layer, _, _), scores in scores_by_layer(decoder, ids, [(True, 4)]):
        weights = scores / (4 * decoder.config.num_heads)
        given = {"method": "adaptive", "gain": 1.0, "keep": 0.3, **vars(adaptive)}
        expected = choose(weights, adaptive, most_tokens(0.3, adaptive, len(ids))).places.tolist()
        assert kept(given | {"first_layer": layer, "last_layer": layer}) == expected


def test_finds_the_hidden_answer() -> None:
    assert _find(Probe([1, 2, 3, 9, 2, 3, 4], [2, 3])) == range(4, 6)
    assert _find(Probe([1, 2, 3, 9], [3, 5])) == range(2, 3)


@pytest.mark.slow
def test_sweep_on_the_bundled_model() -> None:
    """Keeping all is the whole prompt, whatever the layer; recall grows with the share."""
    decoder = load_decoder(TINY, torch.float32, torch.device("cpu"))
    tokenizer = Tokenizer.from_directory(TINY)
    haystack = calibration_haystack(tokenizer, None, LENGTH)
    shown: list[tuple[str, int, int]] = []
    found = calibrate_filter(
        decoder,
        tokenizer,
        haystack,
        length=LENGTH,
        keeps=(1.0, 0.3, 0.1),
        trials=1,
        policy=GemFilterPolicy(),
        progress=lambda *of: shown.append(of),
    )
    assert found.keeps == (0.1, 0.3, 1.0)
    assert found.accuracy.shape == (decoder.config.num_layers, 3)
    assert (found.accuracy[:, 2] == found.full).all()
    assert (found.recall[:, 2] == 1).all()
    assert (np.diff(found.recall, axis=1) >= 0).all()
    assert (found.distance[:, 2] == 0).all()
    assert (found.ends_kept[:, 2] == 1).all()
    assert (found.ends_kept[:, 0] < 1).any()
    assert [of[1:] for of in shown if of[0] == "whole prompts"] == [(count, 5) for count in range(6)]
    assert [of[1:] for of in shown if of[0] == "layers"] == [(count, 5) for count in range(1, 6)]
    assert found.trials == ()


@pytest.mark.slow
def test_the_search_finds_what_the_published_policy_does_not() -> None:
    """The bundled model answers from hardly anything that the published policy keeps of these prompts."""
    decoder, tokenizer = load_decoder(TINY), Tokenizer.from_directory(TINY)
    haystack = calibration_haystack(tokenizer, None, 320)
    found = calibrate_filter(decoder, tokenizer, haystack, length=320, keeps=(0.3, 0.7), trials=1)
    published, best = found.trials[0], found.trials[-1]
    assert published.policy == GemFilterPolicy()
    same = [trial.judgement for trial in found.trials if trial.keep == best.keep]
    assert best.judgement.accuracy == max(same).accuracy >= published.judgement.accuracy + 0.3
    assert found.defaults is not None
    assert found.defaults.gemfilter == best.policy == found.policy
    assert found.defaults.adaptive is not None
    assert found.defaults.adaptive.agreement == 0


def test_mistakes(llama_directory: Path) -> None:
    decoder = load_decoder(llama_directory, torch.float32, torch.device("cpu"))
    tokenizer = Tokenizer.from_directory(llama_directory)
    haystack = calibration_haystack(tokenizer, ["the cat sat. " * 400], 200)
    for options, named in (
        ({"length": 513}, "context"),
        ({"keeps": ()}, "none"),
        ({"keeps": (0.1, 2)}, "0.1, 2"),
    ):
        with pytest.raises(ValueError, match=named):
            calibrate_filter(decoder, tokenizer, haystack, **options)  # type: ignore[arg-type]
