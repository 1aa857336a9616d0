"""The filter that chooses its layer and number of tokens by itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lapidist import LLM, SamplingParams
from lapidist.engine.prompt_filters import Adaptive, FilterReport
from lapidist.engine.prompt_filters.adaptive import _agreement, forced_ends, layer_range, tokens_for_mass
from lapidist.engine.prompt_filters.forecast import gain
from lapidist.models.config import ModelConfig
from lapidist.models.filter_config import AdaptivePolicy, FilterDefaults
from tests.checkpoints import write_random_llama

LLAMA = ModelConfig.of_shape("llama-3.1-8b")
PARAMS = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    directory = write_random_llama(tmp_path_factory.mktemp("deep"), layers=8)
    return LLM(directory, max_num_batched_tokens=32, max_num_seqs=4, page_size=4)


def run(llm: LLM, count: int = 200, **options: Any) -> FilterReport:
    ids = torch.randint(3, 300, (count,), generator=torch.Generator().manual_seed(0)).tolist()
    given = {"method": "adaptive", "least": 10, "keep_last": 6, **options}
    [output] = llm.generate({"prompt_token_ids": ids}, PARAMS, prompt_filter=given)
    assert output.prompt_filter is not None
    assert len(output.outputs[0].token_ids) == 4
    return output.prompt_filter


def test_layers_that_may_decide() -> None:
    assert layer_range(Adaptive(), LLAMA) == range(8, 20)
    calibrated = replace(LLAMA, prompt_filter=FilterDefaults(13, 0.1))
    assert layer_range(Adaptive(), calibrated) == range(13, 16)
    assert layer_range(Adaptive(first_layer=25), LLAMA) == range(25, 26)
    assert layer_range(Adaptive(last_layer=5), LLAMA) == range(5, 6)
    assert layer_range(Adaptive(first_layer=3, last_layer=99), LLAMA) == range(3, 32)


@pytest.mark.parametrize(("mass", "expected"), [(0.4, 1), (0.6, 2), (0.9, 2), (0.95, 3), (1.0, 3)])
def test_tokens_for_mass(mass: float, expected: int) -> None:
    # The mean is 2; beyond it are 4, 3.5 and 0.5.
    scores = torch.tensor([0.0, 6.0, 1.0, 5.5, 0.0, 2.5, 1.0, 0.0])
    assert tokens_for_mass(scores, mass) == expected


def test_a_flat_background_asks_for_nothing() -> None:
    """However long the prompt is: a share of all the mass would grow with it."""
    for length in (100, 10_000):
        scores = torch.full((length,), 0.01)
        scores[40:50] += 1.0
        assert tokens_for_mass(scores, 0.9) <= 10
    assert tokens_for_mass(torch.ones(50), 0.9) >= 1
    assert tokens_for_mass(torch.ones(0), 0.9) == 0


@pytest.mark.parametrize(
    ("most", "expected"), [(100, (2, 6)), (16, (2, 6)), (9, (2, 2)), (3, (1, 0)), (1, (0, 0))]
)
def test_ends_leave_half_of_the_room(most: int, expected: tuple[int, int]) -> None:
    assert forced_ends(AdaptivePolicy(keep_first=2, keep_last=6), most) == expected


def test_agreement_is_zero_by_chance_and_one_for_all() -> None:
    middle, everything = slice(0, 1000), torch.arange(1000)
    previous = torch.arange(0, 1000, 10)
    assert _agreement(previous, previous, middle) == 1
    assert _agreement(previous, torch.arange(0, 1000, 2), middle) == 1
    assert _agreement(previous, previous + 1, middle) < 0
    chosen = torch.randperm(1000, generator=torch.Generator().manual_seed(0))[:500]
    assert abs(_agreement(previous, chosen, middle)) < 0.2
    assert _agreement(previous, everything, middle) == 0  # all are kept: that says nothing
    assert _agreement(previous[:0], chosen, middle) == 0


def test_the_last_layer_decides_if_nothing_settles(llm: LLM) -> None:
    report = run(llm, first_layer=1, last_layer=5, agreement=1.0, keep=30, gain=1.0)
    assert report.layer == 5


def test_a_layer_whose_choice_does_not_fit_does_not_decide(llm: LLM) -> None:
    spread = run(llm, first_layer=1, last_layer=5, agreement=0.0, mass=1.0, keep=20, gain=1.0)
    assert (spread.layer, spread.kept_tokens) == (5, 20)
    narrow = run(llm, first_layer=1, last_layer=5, agreement=0.0, mass=0.01, keep=20, gain=1.0)
    assert narrow.layer == 1


def test_the_first_layer_decides_if_all_is_settled(llm: LLM) -> None:
    report = run(llm, first_layer=2, last_layer=5, agreement=0.0, keep=150, gain=1.0)
    assert report.layer == 2


def test_bounds_and_ends(llm: LLM) -> None:
    report = run(llm, mass=1e-6, keep_first=3, gain=1.0)
    assert report.kept is not None
    assert report.kept_tokens == len(report.kept) == 10
    assert set(report.kept) >= {0, 1, 2, *range(194, 200)}
    assert run(llm, mass=1.0, keep=30, gain=1.0).kept_tokens == 30
    assert run(llm, mass=1.0, least=110, gain=1.0).kept_tokens == 110  # half of the prompt, but no fewer
    assert run(llm, mass=1e-6, least=40, keep=0.1, gain=1.0).kept_tokens == 40
    assert run(llm, mass=1e-6, least=40, keep=20, gain=1.0).kept_tokens == 20  # so many and no more


def test_plain_where_filtering_does_not_pay(llm: LLM) -> None:
    config = llm.engine.config
    report = run(llm, first_layer=6, last_layer=7, mass=1.0, least=98, gain=1.1)
    assert report.bypassed is not None
    assert report.forecast_gain is not None
    assert report.forecast_gain < 1.1
    assert report.kept_tokens == 200
    # Known beforehand: the filter does not even begin.
    hopeless = run(llm, first_layer=7, last_layer=7, gain=1.3, keep_first=1)
    assert "at the best" in (hopeless.bypassed or "")
    assert hopeless.seconds == 0
    assert hopeless.forecast_gain == pytest.approx(gain(config, 200, 10, 7))


def test_a_plain_run_says_what_the_model_says(llm: LLM) -> None:
    ids = list(range(5, 150))
    options = {"method": "adaptive", "gain": 100}
    plain, filtered = (
        llm.generate({"prompt_token_ids": ids}, PARAMS, prompt_filter=given)[0] for given in (None, options)
    )
    assert plain.outputs == filtered.outputs


def test_the_forecast_is_of_what_was_kept(llm: LLM) -> None:
    report = run(llm, mass=0.3, gain=1.0)
    assert report.layer is not None
    assert report.forecast_gain == pytest.approx(
        gain(llm.engine.config, 200, report.kept_tokens, report.layer)
    )


def test_prompts_shorter_than_the_ends(llm: LLM) -> None:
    for count in (1, 2, 5, 9, 40):
        report = run(llm, count=count, gain=1.0, keep=1.0)
        assert report.kept_tokens <= count


def test_calibration_is_the_default(tmp_path: Path) -> None:
    from lapidist.models.calibration.checkpoint_files import write_filter

    directory = write_random_llama(tmp_path / "m", layers=4)
    write_filter(directory, FilterDefaults(3, 0.25))
    own = LLM(directory)
    ids = list(range(5, 105))
    for method, expected in (("gemfilter", 25), ("fastkv", 25), ("snapkv", 25)):
        report = own.generate({"prompt_token_ids": ids}, PARAMS, prompt_filter={"method": method})[
            0
        ].prompt_filter
        assert report is not None
        assert report.kept_tokens == expected
        assert report.layer == (None if method == "snapkv" else 3)
    explicit = {"method": "gemfilter", "layer": 1, "keep": 10}
    report = own.generate({"prompt_token_ids": ids}, PARAMS, prompt_filter=explicit)[0].prompt_filter
    assert report is not None
    assert (report.layer, report.kept_tokens) == (1, 10)
