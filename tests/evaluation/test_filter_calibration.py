"""The sweep over layers: what it counts, what it chooses, and that its scores are those of the engine's filter."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lapidist import LLM, SamplingParams
from lapidist.bundled import TINY
from lapidist.engine.prompt_filters import GemFilter
from lapidist.engine.prompt_filters.selection import select
from lapidist.evaluation.filter_calibration import (
    FilterCalibration,
    _find,
    calibrate_filter,
    calibration_haystack,
    layer_scores,
)
from lapidist.evaluation.needle import Probe
from lapidist.models.filter_config import FilterDefaults
from lapidist.models.load import load_decoder
from lapidist.models.tokenizer import Tokenizer

LENGTH = 160


def calibration(accuracy: list[list[float]], full: float = 1.0, goal: float = 0.95) -> FilterCalibration:
    array = np.array(accuracy)
    keeps = (0.1, 0.2, 0.4)[: array.shape[1]]
    return FilterCalibration(100, 10, keeps, goal, full, array, array, array, array)


@pytest.mark.parametrize(
    ("accuracy", "full", "expected"),
    [
        ([[0, 0.5], [0.2, 0.96], [0.94, 1.0]], 1.0, FilterDefaults(2, 0.2)),
        ([[0, 0.5], [0.95, 0.96], [0.95, 1.0]], 1.0, FilterDefaults(1, 0.1)),
        ([[0, 0.5], [0.2, 0.5]], 0.5, FilterDefaults(0, 0.2)),
        ([[0, 0.5], [0.2, 0.5]], 1.0, None),
        ([[0, 0], [0, 0]], 0.0, None),
    ],
)
def test_the_smallest_share_and_the_best_layer(
    accuracy: list[list[float]], full: float, expected: FilterDefaults | None
) -> None:
    assert calibration(accuracy, full).defaults == expected


def test_scores_are_those_of_the_engine(llama_directory: Path) -> None:
    decoder = load_decoder(llama_directory, torch.float32, torch.device("cpu"))
    ids = torch.randint(3, 300, (90,), generator=torch.Generator().manual_seed(0)).tolist()
    llm = LLM(llama_directory, dtype="float32")
    for options in (GemFilter(), GemFilter(softmax=True, window=4, pool=3)):
        for layer, scores in enumerate(layer_scores(decoder, ids, options)):
            given = {"method": "gemfilter", "layer": layer, "keep": 9, "softmax": options.softmax}
            given |= {"window": options.window, "pool": options.pool}
            [output] = llm.generate(
                {"prompt_token_ids": ids}, SamplingParams(max_tokens=1), prompt_filter=given
            )
            assert output.prompt_filter is not None
            assert output.prompt_filter.kept == select(scores, 9).tolist()


def test_finds_the_hidden_answer() -> None:
    assert _find(Probe([1, 2, 3, 9, 2, 3, 4], [2, 3])) == range(4, 6)
    assert _find(Probe([1, 2, 3, 9], [3, 5])) == range(2, 3)


@pytest.mark.slow
def test_sweep_on_the_bundled_model() -> None:
    """Keeping all is the whole prompt, whatever the layer; recall grows with the share."""
    decoder = load_decoder(TINY, torch.float32, torch.device("cpu"))
    tokenizer = Tokenizer.from_directory(TINY)
    haystack = calibration_haystack(tokenizer, None, LENGTH)
    shown: list[tuple[int, int]] = []
    found = calibrate_filter(
        decoder,
        tokenizer,
        haystack,
        length=LENGTH,
        keeps=(1.0, 0.3, 0.1),
        trials=1,
        progress=lambda done, total: shown.append((done, total)),
    )
    assert found.keeps == (0.1, 0.3, 1.0)
    assert found.accuracy.shape == (decoder.config.num_layers, 3)
    assert (found.accuracy[:, 2] == found.full).all()
    assert (found.recall[:, 2] == 1).all()
    assert (np.diff(found.recall, axis=1) >= 0).all()
    assert (found.distance[:, 2] == 0).all()
    assert (found.ends_kept[:, 2] == 1).all()
    assert (found.ends_kept[:, 0] < 1).any()
    assert shown == [(count, 5) for count in range(6)]


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
