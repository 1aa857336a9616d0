"""The released layers have the steps that the paper counts."""

import pytest

from lapidist.hardware.wafer.communications import Broadcast, Shift
from lapidist.hardware.wafer.cost import COMMUNICATION, CostModel
from lapidist.hardware.wafer.cost_constants import calibrated_constants
from lapidist.hardware.wafer.cost_terms import cost_terms
from lapidist.hardware.wafer.released_kernels import (
    ReleasedLayer,
    released_decode_layer,
    released_prefill_layer,
)
from lapidist.hardware.wafer.steps import Together

LLAMA3 = ReleasedLayer(4096, 14336)
WSE2 = CostModel(calibrated_constants("wse-2"), 4)


@pytest.mark.parametrize("cores", [60, 480, 721])
def test_steps_of_a_prefill_layer(cores: int) -> None:
    """9 P steps that multiply and 2.5 P that align (P even), and four all-reduces."""
    steps = align = allreduces = 0.0
    for description, runs in released_prefill_layer(LLAMA3, 4096, cores):
        for step, times in description.walk():
            steps += runs * times * isinstance(step, Together)
            align += runs * times * isinstance(step, Shift)
            allreduces += runs * times * isinstance(step, Broadcast)
    assert steps == 9 * cores
    assert align == 5 * (cores // 2)
    assert allreduces == 4


def test_a_decode_layer_has_ten_allreduces_and_shifts_nothing() -> None:
    program = released_decode_layer(LLAMA3, 4096, 420, 20)
    terms = cost_terms([program])
    assert terms.allreduces.values[:, 0].sum() == 10
    assert not len(terms.loops.values)
    assert not len(terms.transfers.values)


def test_decode_is_mostly_communication() -> None:
    """The paper: up to 90 %; the larger the model on the same mesh, the less."""
    shares = [
        WSE2.program_cost(released_decode_layer(layer, 4096, 420, 20)).share(COMMUNICATION)
        for layer in (LLAMA3, ReleasedLayer(8192, 29568))
    ]
    assert 0.65 <= shares[1] < shares[0] <= 0.9


def test_sides_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ReleasedLayer(0, 4)
