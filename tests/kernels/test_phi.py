"""The band of row maxima and the choice of phi."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lapidist.kernels.phi import MARGIN, Band, choose_phi, safe_band

BAND = Band(-55.0, 78.0)
ROOM = BAND.width - 2 * MARGIN


@pytest.mark.parametrize(
    ("context", "value", "high"),
    [(1024, 1.0, 81.8), (131072, 0.0, 76.9), (2**20, 0.5, 74.9), (1024, 100.0, 77.2)],
)
def test_upper_end_of_the_band(context: int, value: float, high: float) -> None:
    assert safe_band(context, value).high == pytest.approx(high, abs=0.05)


@pytest.mark.parametrize(("context", "low"), [(1, -55.45), (131072, -55.45), (2**24, -54.1)])
def test_lower_end_of_the_band(context: int, low: float) -> None:
    """The guard on the denominator decides, until a context is so long that small terms are lost before."""
    assert safe_band(context, 1.0).low == pytest.approx(low, abs=0.05)


@pytest.mark.parametrize("context", [1, 1000, 131072])
@pytest.mark.parametrize("value", [0.01, 1.0, 50.0])
def test_sums_at_both_ends_are_exact_in_float32(context: int, value: float) -> None:
    band = safe_band(context, value)
    values = torch.full((context,), value).mul_(torch.rand(context))
    for end, spread in ((band.low, 20.0), (band.high, 0.0)):
        scores = end - spread * torch.rand(context)
        scores[0] = end
        weights = scores.exp()
        assert 2.0**-80 * 0.999 <= weights.sum() < math.inf
        exact = scores.double().softmax(0) @ values.double()
        assert weights @ values / weights.sum() == pytest.approx(exact.item(), rel=1e-4)


def test_zero_is_preferred() -> None:
    choice = choose_phi([[-40.0, 3.0], [0.0, 0.0]], [[10.0, 67.0], [1.0, 2.0]], [BAND, BAND])
    assert choice.phi == ((0.0, 0.0), (0.0, 0.0))


def test_one_number_where_zero_does_not_do() -> None:
    choice = choose_phi([[90.0, 100.0]], [[110.0, 120.0]], [BAND])
    assert choice.phi is not None
    first, second = choice.phi[0]
    assert first == second
    # In the middle of what suits: as far from the upper end as from the lower.
    assert 90 - first - BAND.low == pytest.approx(BAND.high - (120 - first), abs=0.01)


def test_one_number_for_each_head_where_none_suits_all() -> None:
    choice = choose_phi([[100.0, -150.0]], [[110.0, -140.0]], [BAND])
    assert choice.phi is not None
    high, low = choice.phi[0]
    assert high == pytest.approx(105 - 11.5, abs=0.01)
    assert low == pytest.approx(-145 - 11.5, abs=0.01)


def test_a_head_too_wide_is_named() -> None:
    choice = choose_phi([[0.0, 0.0], [0.0, -30.0]], [[1.0, 1.0], [1.0, ROOM - 29.9]], [BAND, BAND])
    assert choice.phi is None
    [misfit] = choice.misfits
    assert (misfit.layer, misfit.head) == (1, 1)
    assert str(misfit) == "layer 1 head 1: row maxima from -30.0 to 83.1, 113.1 apart where 113.0 fit"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_misfits(value: float) -> None:
    for low, high in ((value, value), (0.0, value), (value, 0.0)):
        choice = choose_phi([[low, 0.0]], [[high, 1.0]], [BAND])
        assert choice.phi is None
        assert choice.misfits[0].head == 0


def test_values_that_overflow_leave_no_band() -> None:
    assert choose_phi([[0.0]], [[1.0]], [safe_band(10, math.inf)]).phi is None


heads = st.tuples(st.floats(-400, 400), st.floats(0, 150)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(st.lists(heads, min_size=2, max_size=2), min_size=1, max_size=3))
def test_a_choice_keeps_the_margin_and_a_refusal_has_a_reason(
    layers: list[list[tuple[float, float]]],
) -> None:
    lows, highs = [[[pair[i] for pair in layer] for layer in layers] for i in (0, 1)]
    choice = choose_phi(lows, highs, [BAND] * len(layers))
    wide = {
        (i, j) for i, layer in enumerate(layers) for j, (low, high) in enumerate(layer) if high - low > ROOM
    }
    assert {(misfit.layer, misfit.head) for misfit in choice.misfits} == wide
    assert (choice.phi is None) == bool(wide)
    for layer, row in zip(layers, choice.phi or (), strict=False):
        for (low, high), phi in zip(layer, row, strict=True):
            assert BAND.slack(low, high, phi) >= MARGIN - 0.01  # phi is rounded
