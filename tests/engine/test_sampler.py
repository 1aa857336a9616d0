"""Sampled tokens against exact distributions computed slowly, and against each other across batches."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.engine import sampler
from lapidist.engine.drawing import draw_from_rows
from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.logprobs import token_logprobs
from lapidist.engine.sampler import Sampler
from lapidist.engine.sampling_params import SamplingParams
from lapidist.engine.sequence_sampling import SequenceSampling, validate_against_vocabulary

EOS = 3


class AllowedTokens:
    def __init__(self, token_ids: set[int]) -> None:
        self.token_ids = token_ids

    def fill_mask(self, row: torch.Tensor) -> None:
        words = [0] * len(row)
        for token_id in self.token_ids:
            words[token_id // 32] |= 1 << token_id % 32
        row.copy_(torch.tensor([word - (word >> 31 << 32) for word in words], dtype=torch.int32))


class BrokenMask:
    def fill_mask(self, row: torch.Tensor) -> None:
        raise InvalidRequestError("too complex")


def state(params: SamplingParams, vocab_size: int, prompt=(), output=(), index: int = 0) -> SequenceSampling:
    found = SequenceSampling(params, prompt, vocab_size, index, eos_token_ids=[EOS])
    for token_id in output:
        found.append(token_id)
    return found


# -- the exact distribution ----------------------------------------------------------------------------------


def exact_probabilities(logits, params: SamplingParams, prompt, output, allowed=None) -> list[float]:
    """Plain Python in double precision, token by token, straight from the definitions."""
    x = list(logits)
    if len(output) < params.min_tokens:
        for token_id in [EOS, *(params.stop_token_ids or [])]:
            x[token_id] = -math.inf
    for token_id, bias in (params.logit_bias or {}).items():
        x[token_id] += bias
    if allowed is not None:
        x = [value if i in allowed else -math.inf for i, value in enumerate(x)]
    for i in range(len(x)):
        if i in prompt or i in output:
            x[i] = x[i] / params.repetition_penalty if x[i] > 0 else x[i] * params.repetition_penalty
        x[i] -= params.frequency_penalty * output.count(i) + params.presence_penalty * (i in output)
    if params.greedy:
        return [float(i == x.index(max(x))) for i in range(len(x))]
    weights = [math.exp((value - max(x)) / params.temperature) for value in x]
    weights = [w if w >= params.min_p * max(weights) else 0.0 for w in weights]
    likeliest = sorted(weights, reverse=True)
    if params.top_k > 0:
        likeliest = likeliest[: params.top_k]
        weights = [w if w >= likeliest[-1] else 0.0 for w in weights]
    mass = params.top_p * sum(likeliest)
    if params.top_p < 1:
        weights = [w if sum(v for v in likeliest if v > w) < mass else 0.0 for w in weights]
    return [w / sum(weights) for w in weights]


def assert_distributed(counts: list[int], probabilities: list[float]) -> None:
    """Chi-square test; a right sampler fails it once in a million."""
    draws = sum(counts)
    assert all(count == 0 for count, p in zip(counts, probabilities, strict=True) if p == 0)
    statistic, cells, rest_count, rest_expected = 0.0, 0, 0, 0.0
    for count, p in sorted(zip(counts, probabilities, strict=True), key=lambda pair: -pair[1]):
        if p * draws >= 8:
            statistic += (count - p * draws) ** 2 / (p * draws)
            cells += 1
        else:
            rest_count, rest_expected = rest_count + count, rest_expected + p * draws
    if rest_expected >= 8:
        statistic += (rest_count - rest_expected) ** 2 / rest_expected
        cells += 1
    if cells > 1:
        half = torch.tensor([(cells - 1) / 2, statistic / 2], dtype=torch.float64)
        assert torch.special.gammaincc(half[0], half[1]) > 1e-6, f"chi-square {statistic} in {cells} cells"


def random_case(source: random.Random, vocab_size: int):
    """Logits with ties, parameters of every kind, a history, maybe a mask."""
    logits = [source.randint(-24, 24) / 8 for _ in range(vocab_size)]
    maybe = lambda value, default: value if source.random() < 0.5 else default  # noqa: E731
    params = SamplingParams(
        temperature=maybe(source.uniform(0.2, 2.5), source.choice([0.0, 1.0, 1.0])),
        top_k=maybe(source.randint(-1, vocab_size + 2), 0),
        top_p=maybe(source.uniform(0.05, 1.0), 1.0),
        min_p=maybe(source.uniform(0, 0.5), 0.0),
        presence_penalty=maybe(source.uniform(-2, 2), 0.0),
        frequency_penalty=maybe(source.uniform(-2, 2), 0.0),
        repetition_penalty=maybe(source.uniform(0.5, 2), 1.0),
        min_tokens=maybe(source.randint(0, 6), 0),
        max_tokens=20,
        stop_token_ids=maybe([5, 7], None),
        logit_bias=maybe({source.randrange(vocab_size): source.uniform(-5, 5) for _ in range(3)}, None),
    )
    prompt = [source.randrange(vocab_size) for _ in range(source.randint(0, 8))]
    output = [source.randrange(vocab_size) for _ in range(source.randint(0, 8))]
    allowed = maybe({i for i in range(vocab_size) if source.random() < 0.4} | {0, 1}, None)
    return logits, params, prompt, output, allowed


@pytest.fixture(params=["by row", "all rows at once"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw as on a CPU, and as on a GPU."""
    if request.param == "all rows at once":
        monkeypatch.setattr(sampler, "draw", draw_from_rows)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("vocab_size", [8, 45])
def test_every_mix_of_parameters_draws_from_the_exact_distribution(vocab_size: int) -> None:
    source = random.Random()
    cases = [random_case(source, vocab_size) for _ in range(20)]
    draws = 300
    rows = [case for case in range(len(cases)) for _ in range(draws)]
    source.shuffle(rows)
    logits = torch.tensor([cases[case][0] for case in rows])
    states = [state(cases[case][1], vocab_size, *cases[case][2:4]) for case in rows]
    masks = [None if cases[case][4] is None else AllowedTokens(cases[case][4]) for case in rows]
    before = logits.clone()
    tokens = Sampler(source.getrandbits(60)).sample(logits, states, masks)
    assert torch.equal(logits, before)
    counts = [[0] * vocab_size for _ in cases]
    for case, token in zip(rows, tokens, strict=True):
        assert token.error is None
        counts[case][token.token_id] += 1
    for case, count in zip(cases, counts, strict=True):
        assert_distributed(count, exact_probabilities(*case))


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(("spread", "top_p"), [(0.01, 0.9), (3.0, 0.999), (1.0, 0.4)])
def test_nucleus_of_a_large_vocabulary(spread: float, top_p: float) -> None:
    vocab_size, draws, cells = 8000, 1000, 20
    row = torch.randn(vocab_size) * spread
    weights, order = row.double().exp().sort(descending=True)
    kept = int((weights.cumsum(0) - weights < top_p * weights.sum()).sum())
    # The nucleus, likeliest first, in cells of about equal probability; one more cell for the rest.
    shares = weights[:kept] / weights[:kept].sum()
    cell = torch.full([vocab_size], cells).index_put(
        (order[:kept],), ((shares.cumsum(0) - shares) * cells).long()
    )
    expected = torch.zeros(cells + 1, dtype=torch.float64).index_add(0, cell[order[:kept]], shares)
    states = [state(SamplingParams(top_p=top_p), vocab_size) for _ in range(draws)]
    tokens = Sampler(random.getrandbits(60)).sample(row.expand(draws, -1), states)
    counts = torch.bincount(cell[[token.token_id for token in tokens]], minlength=cells + 1)
    assert_distributed(counts.tolist(), expected.tolist())


# -- greedy --------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_greedy_takes_the_lowest_of_the_likeliest(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(st.integers(-3, 3), min_size=6, max_size=6), min_size=1, max_size=5))
    kinds = [SamplingParams(temperature=0), SamplingParams(temperature=0, logit_bias={0: 0.0})]
    states = [state(data.draw(st.sampled_from(kinds)), 6) for _ in rows]
    tokens = Sampler().sample(torch.tensor(rows, dtype=torch.float32), states)
    assert [token.token_id for token in tokens] == [row.index(max(row)) for row in rows]


def test_extreme_temperatures() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, -4.0]]).expand(50, -1)
    cold = [state(SamplingParams(temperature=1e-4), 4) for _ in range(50)]
    assert {token.token_id for token in Sampler().sample(logits, cold)} == {1}
    hot = [state(SamplingParams(temperature=100.0, seed=i), 4) for i in range(50)]
    assert {token.token_id for token in Sampler().sample(logits, hot)} == {0, 1, 2, 3}


# -- random streams ------------------------------------------------------------------------------------------


def generate(
    sampler: Sampler, own: SequenceSampling, table: torch.Tensor, others: random.Random | None
) -> list[int]:
    """Eight tokens of a sequence whose logits depend on its last token, in batches of random company."""
    token_ids = [0]
    for _ in range(8):
        states, rows = [own], [table[token_ids[-1]]]
        if others is not None:
            for _ in range(others.randint(0, 4)):
                logits, params, prompt, output, _ = random_case(others, table.shape[1])
                where = others.randint(0, len(states))
                states.insert(where, state(params, table.shape[1], prompt, output))
                rows.insert(where, torch.tensor(logits))
        token = sampler.sample(torch.stack(rows), states)[states.index(own)]
        own.append(token.token_id)
        token_ids.append(token.token_id)
    return token_ids[1:]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(-(2**63), 2**63), case=st.randoms(use_true_random=True), index=st.integers(0, 3))
def test_seeded_tokens_do_not_depend_on_the_batch(seed: int, case: random.Random, index: int) -> None:
    vocab_size = 40
    params = SamplingParams(
        seed=seed,
        temperature=case.uniform(0.3, 2),
        top_k=case.choice([0, 5]),
        top_p=case.choice([1.0, 0.8]),
        frequency_penalty=case.choice([0, 0.5]),
    )
    table = torch.randn(vocab_size, vocab_size)
    alone = generate(Sampler(1), state(params, vocab_size, index=index), table, None)
    crowded = generate(Sampler(2), state(params, vocab_size, index=index), table, case)
    assert alone == crowded


def test_streams_differ_by_seed_and_completion_and_sampler() -> None:
    logits = torch.zeros(1, 1000)

    def tokens(sampler: Sampler, own: SequenceSampling) -> tuple[int, ...]:
        return tuple(sampler.sample(logits, [own])[0].token_id for _ in range(6))

    shared = Sampler(5)
    found = [tokens(shared, state(SamplingParams(seed=1), 1000, index=index)) for index in range(3)]
    found += [
        tokens(shared, state(SamplingParams(seed=9), 1000)),
        tokens(shared, state(SamplingParams(), 1000)),
    ]
    found += [
        tokens(shared, state(SamplingParams(), 1000)),
        tokens(Sampler(6), state(SamplingParams(), 1000)),
    ]
    assert len(set(found)) == len(found)
    assert tokens(Sampler(5), state(SamplingParams(), 1000)) == tokens(
        Sampler(5), state(SamplingParams(), 1000)
    )


# -- log-probabilities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, 1, 4, 30, 100, -1])
def test_token_logprobs(k: int) -> None:
    vocab_size = 30
    logits = torch.randint(-8, 8, (7, vocab_size)) / 2
    chosen = torch.randint(vocab_size, (7,)).tolist()
    expected = logits.double().log_softmax(-1)
    for row, entries in enumerate(token_logprobs(logits, chosen, k)):
        assert entries[0][0] == chosen[row]
        ids = [token_id for token_id, _, _ in entries]
        assert len(set(ids)) == len(ids)
        for token_id, logprob, rank in entries:
            assert logprob == pytest.approx(float(expected[row, token_id]), abs=1e-5)
            assert rank == 1 + int((logits[row] > logits[row, token_id]).sum())
        count = vocab_size if k < 0 else min(k, vocab_size)
        likeliest = logits[row].sort(descending=True).values[:count].tolist()
        listed = sorted((float(logits[row, i]) for i in ids[1:]), reverse=True)
        if len(ids) == count + 1:
            assert listed == likeliest
        else:  # the chosen token is one of the likeliest
            assert sorted([*listed, float(logits[row, chosen[row]])], reverse=True) == likeliest


def test_logprobs_are_of_the_model_and_only_on_request() -> None:
    logits = torch.randn(3, 20)
    asked = SamplingParams(
        temperature=0.1, top_k=2, logit_bias={4: 100.0}, presence_penalty=2.0, logprobs=5, min_tokens=1
    )
    states = [
        state(asked, 20),
        state(SamplingParams(), 20),
        state(SamplingParams(temperature=0, logprobs=0), 20),
    ]
    tokens = Sampler().sample(logits, states)
    expected = logits.log_softmax(-1)
    assert tokens[0].token_id == 4
    assert tokens[0].logprobs is not None
    assert tokens[0].logprob == tokens[0].logprobs[0][1] == pytest.approx(float(expected[0, 4]), abs=1e-5)
    assert {i for i, _, _ in tokens[0].logprobs} >= set(expected[0].topk(5).indices.tolist())
    assert tokens[1].logprobs is None
    assert math.isnan(tokens[1].logprob)
    assert tokens[2].logprobs == [(tokens[2].token_id, pytest.approx(float(expected[2].max()), abs=1e-5), 1)]


# -- what goes wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0),
        SamplingParams(top_p=0.5, logprobs=2),
        SamplingParams(presence_penalty=1.0),
    ],
)
def test_bad_logits_fail_their_own_row_alone(bad: float, params: SamplingParams) -> None:
    logits = torch.randn(4, 20)
    logits[2, 13] = bad
    clean = Sampler(3).sample(logits[[0, 1, 3]], [state(params, 20) for _ in range(3)])
    tokens = Sampler(3).sample(logits, [state(params, 20) for _ in range(4)])
    assert [token.error is None for token in tokens] == [True, True, False, True]
    assert "NaN or infinite" in tokens[2].error
    assert [tokens[i].token_id for i in (0, 1, 3)] == [token.token_id for token in clean]


def test_no_token_allowed() -> None:
    masks = [AllowedTokens(set()), AllowedTokens({2}), BrokenMask(), None]
    tokens = Sampler().sample(torch.randn(4, 20), [state(SamplingParams(), 20) for _ in range(4)], masks)
    assert "no token is possible" in tokens[0].error
    assert (tokens[1].token_id, tokens[1].error) == (2, None)
    assert tokens[2].error == "too complex"
    assert tokens[3].error is None


def test_a_complete_structured_text_may_end_before_min_tokens() -> None:
    params = SamplingParams(temperature=0, min_tokens=5)
    logits = torch.zeros(2, 40)
    logits[:, EOS] = 9
    masks = [AllowedTokens({EOS}), AllowedTokens({EOS, 33})]
    tokens = Sampler().sample(logits, [state(params, 40), state(params, 40)], masks)
    assert [token.token_id for token in tokens] == [EOS, 33]
    assert [token.error for token in tokens] == [None, None]


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"logit_bias": {20: 1.0}}, "logit_bias"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias"),
        ({"logit_bias": {"3": 1.0}}, "logit_bias"),
        ({"logit_bias": {3: math.nan}}, "logit_bias"),
        ({"logit_bias": {3: 101}}, "logit_bias"),
        ({"logit_bias": {3: "much"}}, "logit_bias"),
        ({"stop_token_ids": [3, 20]}, "stop_token_ids"),
        ({"stop_token_ids": [True]}, "stop_token_ids"),
    ],
)
def test_tokens_outside_the_vocabulary_are_refused(params: dict, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        validate_against_vocabulary(SamplingParams(**params), 20)


def test_what_is_inside_the_vocabulary_is_accepted() -> None:
    validate_against_vocabulary(SamplingParams(logit_bias={0: -100, 19: 100.0}, stop_token_ids=[19]), 20)
    validate_against_vocabulary(SamplingParams(), 20)
