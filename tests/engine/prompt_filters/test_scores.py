"""Scores: against plain formulas, and GemFilter's as its paper and code have it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.engine.prompt_filters.scores import attention_scores, attention_weights, pooled, raw_scores

SHAPES = st.tuples(
    st.integers(1, 4), st.sampled_from([(4, 4), (4, 2), (6, 1), (6, 3)]), st.integers(1, 40)
).filter(lambda shape: shape[0] <= shape[2])


def tensors(
    shape: tuple[int, tuple[int, int], int], dtype: torch.dtype, seed: int
) -> tuple[torch.Tensor, ...]:
    """Queries ``[queries, heads, 8]``, keys ``[kv_heads, tokens, 8]``, and the keys repeated for every head."""
    queries, (heads, kv_heads), tokens = shape
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(queries, heads, 8, generator=generator, dtype=dtype)
    keys = torch.randn(kv_heads, tokens, 8, generator=generator, dtype=dtype)
    return query, keys, keys.repeat_interleave(heads // kv_heads, 0)


def visible(queries: int, tokens: int) -> torch.Tensor:
    return torch.arange(tokens) <= torch.arange(tokens - queries, tokens)[:, None]


def test_pool_counts_zeros_outside() -> None:
    assert pooled(torch.ones(9), 5).tolist() == pytest.approx([0.6, 0.8, 1, 1, 1, 1, 1, 0.8, 0.6])


@given(st.integers(1, 12), st.sampled_from([1, 3, 5, 7]))
def test_pool_is_the_mean_of_neighbours(tokens: int, width: int) -> None:
    scores = torch.arange(2.0 * tokens).view(2, tokens)
    padded = torch.nn.functional.pad(scores, (width // 2, width // 2))
    expected = torch.stack([padded[:, i : i + width].mean(1) for i in range(tokens)], 1)
    torch.testing.assert_close(pooled(scores, width), expected)


@settings(deadline=None)
@given(SHAPES, st.integers(0, 2**31))
def test_summed_queries_are_the_sum_over_repeated_keys(shape: tuple, seed: int) -> None:
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        query, keys, repeated = tensors(shape, dtype, seed)
        products = torch.einsum("qhd,htd->hqt", query, repeated)
        plain = (products * visible(len(query), keys.shape[1])).sum((0, 1))
        found = raw_scores(query, keys)
        assert found.dtype == dtype
        assert (found - plain).abs().max() <= tolerance * max(1.0, float(products.abs().sum((0, 1)).max()))


def test_choices_agree_in_float64() -> None:
    for seed in range(20):
        query, keys, repeated = tensors((1, (8, 2), 200), torch.float64, seed)
        plain = torch.einsum("qhd,htd->t", query, repeated)
        assert set(raw_scores(query, keys).topk(20).indices.tolist()) == set(plain.topk(20).indices.tolist())


def test_no_scale_and_no_softmax() -> None:
    query, keys, repeated = tensors((1, (4, 2), 30), torch.float32, 0)
    torch.testing.assert_close(raw_scores(3 * query, keys), 3 * raw_scores(query, keys))
    torch.testing.assert_close(raw_scores(query, keys), torch.einsum("qhd,htd->t", query, repeated))


@settings(deadline=None)
@given(SHAPES, st.sampled_from([None, 5.0]), st.integers(0, 2**31))
def test_attention_scores(shape: tuple, softcap: float | None, seed: int) -> None:
    query, keys, repeated = tensors(shape, torch.float32, seed)
    logits = torch.einsum("qhd,htd->hqt", query, repeated).double() * 0.3
    if softcap is not None:
        logits = softcap * (logits / softcap).tanh()
    weights = logits.masked_fill(~visible(len(query), keys.shape[1]), float("-inf")).softmax(-1)
    expected = weights.sum(1).view(len(keys), -1, keys.shape[1]).sum(1)
    torch.testing.assert_close(attention_scores(query, keys, 0.3, softcap), expected.float())


def test_blocks_are_bounded_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    query, keys, _ = tensors((20, (4, 2), 40), torch.float32, 1)
    whole = attention_scores(query, keys, 0.3)
    monkeypatch.setattr("lapidist.engine.prompt_filters.scores._BLOCK", 200)
    blocks = list(attention_weights(query, keys, 20, 0.3))
    assert all(weights.numel() <= 200 for _, weights in blocks)
    torch.testing.assert_close(attention_scores(query, keys, 0.3), whole)
