"""Whose policy a request gets: its own, the calibrated one, or the published one."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lapidist import LLM, SamplingParams
from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.prompt_filters import Adaptive, FilterReport, GemFilter
from lapidist.engine.prompt_filters.policy import adaptive_policy, gemfilter_policy
from lapidist.models.calibration.checkpoint_files import write_filter
from lapidist.models.filter_config import AdaptivePolicy, FilterDefaults, GemFilterPolicy
from tests.checkpoints import write_random_llama

OWN = GemFilterPolicy(softmax=True, window=4, pool=13, keep_first=1, keep_last=24)
CALIBRATED = FilterDefaults(1, 0.3, OWN, AdaptivePolicy(mass=0.5, agreement=0.0))
LAYER_ONLY = FilterDefaults(1, 0.3)


@pytest.mark.parametrize(
    ("options", "calibrated", "expected"),
    [
        ({}, None, GemFilterPolicy()),
        ({}, LAYER_ONLY, GemFilterPolicy()),
        ({}, CALIBRATED, OWN),
        ({"layer": 0, "keep": 5, "positions": "original"}, CALIBRATED, OWN),
        ({"pool": 7}, CALIBRATED, GemFilterPolicy(pool=7)),
        ({"softmax": False}, CALIBRATED, GemFilterPolicy()),
        ({"policy": "published"}, CALIBRATED, GemFilterPolicy()),
        ({"policy": "published", "window": 3}, CALIBRATED, GemFilterPolicy(window=3)),
        (
            {"policy": "calibrated", "window": 3},
            CALIBRATED,
            GemFilterPolicy(softmax=True, window=3, pool=13, keep_first=1, keep_last=24),
        ),
    ],
)
def test_gemfilter(
    options: dict[str, Any], calibrated: FilterDefaults | None, expected: GemFilterPolicy
) -> None:
    assert gemfilter_policy(GemFilter(**options), calibrated) == expected


def test_adaptive_fills_in_what_the_request_leaves_open() -> None:
    assert adaptive_policy(Adaptive(), None) == adaptive_policy(Adaptive(), LAYER_ONLY) == AdaptivePolicy()
    found = adaptive_policy(Adaptive(window=2, mass=0.7), CALIBRATED)
    assert found == AdaptivePolicy(window=2, mass=0.7, agreement=0.0)


def test_a_policy_that_was_never_calibrated() -> None:
    for calibrated in (None, LAYER_ONLY):
        with pytest.raises(InvalidRequestError, match="calibrate-filter"):
            gemfilter_policy(GemFilter(policy="calibrated"), calibrated)


def test_the_engine_runs_and_reports_it(tmp_path: Path) -> None:
    """The calibrated policy chooses what it chooses when it is spelled out; the published one is at hand still."""
    plain, calibrated = (write_random_llama(tmp_path / name) for name in ("plain", "calibrated"))
    write_filter(calibrated, CALIBRATED)
    token_ids = torch.randint(3, 300, (150,), generator=torch.Generator().manual_seed(0)).tolist()

    def run(directory: Path, **options: Any) -> FilterReport:
        llm = LLM(directory, dtype="float32")
        params = SamplingParams(temperature=0, max_tokens=1)
        [output] = llm.generate({"prompt_token_ids": token_ids}, params, prompt_filter=options)
        assert output.prompt_filter is not None
        return output.prompt_filter

    spelled = run(plain, method="gemfilter", layer=1, keep=0.3, **vars(OWN))
    published = run(plain, method="gemfilter", layer=1, keep=0.3)
    assert spelled.kept != published.kept
    found = run(calibrated, method="gemfilter")
    assert (found.kept, found.policy) == (spelled.kept, vars(OWN))
    found = run(calibrated, method="gemfilter", policy="published")
    assert (found.kept, found.policy) == (published.kept, vars(GemFilterPolicy()))
    assert run(calibrated, method="adaptive", gain=1.0).policy == vars(CALIBRATED.adaptive)
    assert run(calibrated, method="snapkv").policy is None
