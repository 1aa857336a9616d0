"""The search over policies, on judgements that are known."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from lapidist.evaluation.filter_policy_search import (
    COORDINATES,
    Judgement,
    judged_layers,
    policy_options,
    search_adaptive,
    search_policy,
)
from lapidist.models.filter_config import AdaptivePolicy, GemFilterPolicy


class Known:
    """Prompts that are answered in so far as a policy has the options of the right one, in one layer."""

    num_layers = 8

    def __init__(self, right: GemFilterPolicy, layer: int = 4, enough: float = 0.0) -> None:
        self.right, self.layer, self.enough = right, layer, enough

    def judge(self, policy: GemFilterPolicy, keep: float, layer: int) -> Judgement:
        same = sum(getattr(policy, name) == value for name, value in vars(self.right).items())
        share = same / 6 if layer >= self.layer and keep >= self.enough else 0.1
        return Judgement(round(share, 1), share - 2)

    def judge_adaptive(self, policy: AdaptivePolicy, keep: float, layer: int) -> tuple[Judgement, float]:
        found = Judgement(float(policy.pool >= 21 and policy.mass >= 0.8), -1.0)
        return found, policy.mass / 10 + policy.pool / 1000


def search(prompts: Known, keeps: Sequence[float] = (0.1,)) -> list:
    return search_policy(prompts, keeps, 0.95, lambda done, total: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "right",
    [
        GemFilterPolicy(),
        GemFilterPolicy(softmax=True, window=4, pool=13, keep_first=1, keep_last=24),
        GemFilterPolicy(chunk=8),
    ],
)
def test_finds_the_right_policy_and_the_first_layer(right: GemFilterPolicy) -> None:
    trials = search(Known(right))
    assert trials[0].policy == GemFilterPolicy()
    assert (trials[-1].policy, trials[-1].layer, trials[-1].judgement.accuracy) == (right, 4, 1.0)
    assert len(trials) <= 2 + 2 * sum(map(len, COORDINATES))


def test_takes_the_next_share_only_if_the_first_does_not_do() -> None:
    assert {trial.keep for trial in search(Known(GemFilterPolicy()), (0.1, 0.2))} == {0.1}
    trials = search(Known(GemFilterPolicy(pool=9), enough=0.15), (0.1, 0.2, 0.4))
    assert {trial.keep for trial in trials} == {0.1, 0.2}
    assert trials[-1].policy.pool == 9


def test_what_is_no_better_stays_published() -> None:
    class Indifferent(Known):
        def judge(self, policy: GemFilterPolicy, keep: float, layer: int) -> Judgement:
            return Judgement(0.5, -1.0 + 0.001 * policy.pool)

    assert search(Indifferent(GemFilterPolicy()))[-1].policy == GemFilterPolicy()


def test_adaptive_keeps_the_fewest_tokens_of_equals() -> None:
    policy = GemFilterPolicy(keep_first=2, keep_last=10)
    found = search_adaptive(Known(policy), policy, 4, 0.2, lambda done, total: None)  # type: ignore[arg-type]
    assert (found.mass, found.pool, found.agreement) == (0.9, 21, 0.0), "half-way from 0.8 to 1"
    assert (found.keep_first, found.keep_last, found.least) == (2, 10, 2 + 10 + 21)
    # Where nothing fits into the share, the smallest choice does.
    tight = search_adaptive(Known(policy), policy, 4, 0.001, lambda done, total: None)  # type: ignore[arg-type]
    assert tight == replace(found, mass=0.85, pool=13, least=2 + 10 + 13)


def test_layers_of_deep_models_are_thinned() -> None:
    assert judged_layers(8) == [2, 3, 4, 5, 6, 7]
    assert judged_layers(1) == [0]
    assert len(judged_layers(32)) == 8
    assert judged_layers(32)[-1] == 31


def test_policies_for_people() -> None:
    assert policy_options(GemFilterPolicy()).endswith("no softmax, window 1")
    assert "mass 0.7" in policy_options(AdaptivePolicy())
