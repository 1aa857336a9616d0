import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.wafer.kv_capacity import concat_capacity, even_rows, row_capacity, shift_capacity


def test_published_output_lengths() -> None:
    """WaferLLM table 5: LLaMA3-8B on 360 rows and LLaMA2-13B on 375."""
    assert (concat_capacity(382.08), shift_capacity(382.08, 360)) == (382, 137548)
    assert (concat_capacity(16.448), shift_capacity(16.448, 375)) == (16, 6168)


@given(tokens=st.integers(0, 10**6), rows=st.integers(1, 1000))
def test_even_rows(tokens: int, rows: int) -> None:
    held = even_rows(tokens, rows)
    assert held.sum() == tokens
    assert held.max() - held.min() <= 1
    assert sorted(held, reverse=True) == held.tolist()


def test_fraction_of_a_row() -> None:
    assert row_capacity(3060.0, 2 * 1024 * 2 * 6 / 360) == pytest.approx(44.82, abs=0.01)
    with pytest.raises(ValueError, match="0 bytes a token"):
        row_capacity(1.0, 0)
